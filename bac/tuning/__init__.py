"""From the latency a robot needs to the way its policy denoises: solver, timesteps, update steps and estimator at once.

`bac.tune` makes candidates (`candidate`), fits a solver of its own (`multistep`, `fitting`), runs them on observations
(`bench`), moves their steps (`search`), says what they cost on this machine (`machine`) and picks one that meets the
`budget`.
"""

from bac.tuning.budget import Budget, BudgetError
from bac.tuning.candidate import Candidate
from bac.tuning.multistep import Multistep
from bac.tuning.result import Row, Tuned
from bac.tuning.solver import SOLVERS, Solver, solvers_of
from bac.tuning.stored import is_candidate, load, save
from bac.tuning.tune import tune

__all__ = [
    "SOLVERS",
    "Budget",
    "BudgetError",
    "Candidate",
    "Multistep",
    "Row",
    "Solver",
    "Tuned",
    "is_candidate",
    "load",
    "save",
    "solvers_of",
    "tune",
]
