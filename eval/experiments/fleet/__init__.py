"""How many robots one batched policy server feeds, and at which `control_hz`.

``python -m eval.experiments.fleet`` makes results/fleet.
"""
