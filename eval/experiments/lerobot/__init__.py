"""Latency of LeRobot's own policies at real sizes, dense and cached. Weights are random, so quality is not measured.

``python -m eval.experiments.lerobot model=smolvla`` makes results/lerobot.
"""
