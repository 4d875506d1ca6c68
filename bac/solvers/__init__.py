"""FEWER: solvers that come close to the policy's actions in fewer denoising steps.

`multistep` advances a sample by coefficients fitted to the policy; `fitting` solves for them in closed form.
`ancestral` also draws noise at every step, for policies that do; `regression` fits it. `diffusers` has DPM-Solver++ and
DDPM at chosen timesteps; `interceptor` puts a solver on a sampler. Flow-matching loops have no solver to replace:
`flow` steers them by an effective velocity, and `flow_interceptor` puts that on.
"""

from bac.solvers.adams_bashforth import FLOW_SOLVERS, AdamsBashforth
from bac.solvers.ancestral import Ancestral
from bac.solvers.diffusers import DDPM, DRAWING, SOLVERS, DPMSolver, injects_noise, solvers_of
from bac.solvers.fitting import Fitter, recorded, recording
from bac.solvers.flow_fitting import FlowFit, FlowFitter
from bac.solvers.flow_interceptor import solver_interceptor
from bac.solvers.multistep import Multistep
from bac.solvers.naming import solver_named
from bac.solvers.regression import Regression
from bac.solvers.solver import Solver

__all__ = [
    "DDPM",
    "DRAWING",
    "FLOW_SOLVERS",
    "SOLVERS",
    "AdamsBashforth",
    "Ancestral",
    "DPMSolver",
    "Fitter",
    "FlowFit",
    "FlowFitter",
    "Multistep",
    "Regression",
    "Solver",
    "injects_noise",
    "recorded",
    "recording",
    "solver_interceptor",
    "solver_named",
    "solvers_of",
]
