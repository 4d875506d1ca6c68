"""Every executor of one policy of random weights, timed beside the others: eager, compiled, cached, replayed.

``python -m eval.experiments.latency preset=cpu output=results/latency/cpu.json`` makes results/latency.
"""
