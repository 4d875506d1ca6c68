"""Experiments. Every command makes a part of one page of results/.

==================  =================================================================================================
page                made by ``python -m``
==================  =================================================================================================
results/latency     eval.experiments.latency
results/lerobot     eval.experiments.lerobot
results/guard       eval.experiments.guard
results/fleet       eval.experiments.fleet
results/realtime    eval.experiments.realtime, eval.experiments.control_loop
results/reference   eval.experiments.reference
results/methods     eval.experiments.methods, eval.experiments.methods.joint, eval.experiments.methods.estimator_cost
results/plans       eval.experiments.plans.soak, eval.experiments.plans.guard_cost
results/export      eval.experiments.export
results/images      eval.experiments.images, eval.experiments.images.timing
results/vla         eval.experiments.vla, eval.experiments.noise
==================  =================================================================================================
"""
