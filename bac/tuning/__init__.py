"""Tuning: from a budget to a way to denoise. It chooses solver, timesteps, update steps and estimator together.

`bac.tune` makes ways to denoise (`families`), runs them on observations (`bench`), moves their steps, predicts and
measures their latency on this machine (`machine`, `timing`), and picks one that meets the `budget`.
"""

from bac.tuning.budget import Budget, BudgetError
from bac.tuning.call import tune
from bac.tuning.result import Tuned
from bac.tuning.trial import Trial

__all__ = ["Budget", "BudgetError", "Trial", "Tuned", "tune"]
