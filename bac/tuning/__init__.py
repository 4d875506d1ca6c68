"""From the latency a robot needs to the way its policy denoises: solver, timesteps, update steps and estimator at once.

`bac.tune` makes ways to denoise (`families`), runs them on observations (`bench`), moves their steps, says what they
cost on this machine (`machine`, `timing`) and picks one that meets the `budget`.
"""

from bac.tuning.budget import Budget, BudgetError
from bac.tuning.result import Trial, Tuned
from bac.tuning.tuner import tune

__all__ = ["Budget", "BudgetError", "Trial", "Tuned", "tune"]
