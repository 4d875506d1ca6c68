"""Latency of one policy with random weights, run in every way: eager, compiled, cached, replayed.

``python -m eval.experiments.latency preset=cpu output=results/latency/cpu.json`` makes results/latency.
"""
