"""A drift guard's false alarms, the shifts that it sees, and its cost.

``python -m eval.experiments.guard policy=pusht`` makes results/guard.
"""
