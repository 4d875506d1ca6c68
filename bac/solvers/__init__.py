"""FEWER: solvers that come close to the policy's actions in fewer denoising steps.

`multistep` advances a sample by coefficients fitted to the policy; `fitting` solves for them in closed form;
`diffusers` has DPM-Solver++ at chosen timesteps; `interceptor` puts a solver on a sampler.
"""

from bac.solvers.diffusers import SOLVERS, DPMSolver, injects_noise, solvers_of
from bac.solvers.fitting import Fitter, recorded
from bac.solvers.multistep import Multistep
from bac.solvers.naming import solver_named
from bac.solvers.solver import Solver

__all__ = [
    "SOLVERS",
    "DPMSolver",
    "Fitter",
    "Multistep",
    "Solver",
    "injects_noise",
    "recorded",
    "solver_named",
    "solvers_of",
]
