"""How often a drift guard cries for nothing, which shifts it sees, and what it costs.

``python -m eval.experiments.guard policy=pusht`` makes results/guard.
"""
