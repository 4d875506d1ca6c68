"""How fast LeRobot's own policies denoise at real sizes, dense and cached; random weights, so silent about quality.

``python -m eval.experiments.lerobot model=smolvla`` makes results/lerobot.
"""
