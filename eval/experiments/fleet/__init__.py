"""The number of robots that one batched policy server feeds, by `control_hz`.

``python -m eval.experiments.fleet`` makes results/fleet.
"""
