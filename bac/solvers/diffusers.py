"""Solvers of diffusers, at chosen timesteps."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bac.adapters.host import Host
from bac.solvers.multistep import clip_of


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++ of order 1 or 2M (Lu et al., 2022), deterministic or in its form that draws noise at every step.

    All are diffusers' ``DPMSolverMultistepScheduler``, which takes any decreasing timesteps. Clean actions are clipped
    as the policy's own noise scheduler clips them. Without clipping, order 1 is DDIM with eta = 0 (Song et al., ICLR
    2021). With clipping, it differs: it derives the noise again from the clipped actions.

    Attributes:
        order: 1 or 2. Order 1 reads one step alone, so a cache can leave out its steps; order 2 also reads the step
            before.
        draws: It draws noise at every step.
    """

    order: int
    draws: bool = False

    @property
    def name(self) -> str:
        """``DPM-Solver++`` for the second order, ``DPM-Solver++ 1`` for the first, ``SDE-`` before it if it draws."""
        name = "SDE-DPM-Solver++" if self.draws else "DPM-Solver++"
        return name if self.order == 2 else f"{name} {self.order}"

    def check(self, timesteps: Sequence[float]) -> None:
        """Accept any decreasing timesteps."""

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> Any:
        """See `bac.solvers.Solver.scheduler`."""
        given = trained.config
        clip = clip_of(given)
        scheduler = importlib.import_module("diffusers").DPMSolverMultistepScheduler(
            **{name: given[name] for name in _TRAINED if name in given},
            thresholding=clip is not None,
            algorithm_type="sde-dpmsolver++" if self.draws else "dpmsolver++",
            solver_order=self.order,
        )
        if clip is not None:  # diffusers' own thresholding scales what it clips to [-1, 1]
            scheduler._threshold_sample = partial(torch.clamp, min=-clip, max=clip)
        return _placed(scheduler, timesteps)


@dataclass(frozen=True)
class DDPM:
    """The ancestral solver of DDPM (Ho et al., NeurIPS 2020), with the variance of the policy's own noise scheduler.

    It is diffusers' ``DDPMScheduler``, which takes any decreasing timesteps.
    """

    name = "DDPM"
    draws = True

    def check(self, timesteps: Sequence[float]) -> None:
        """Accept any decreasing timesteps."""

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> Any:
        """See `bac.solvers.Solver.scheduler`."""
        given, clip = trained.config, clip_of(trained.config)
        scheduler = importlib.import_module("diffusers").DDPMScheduler(
            **{name: given[name] for name in (*_TRAINED, "variance_type") if name in given},
            clip_sample=clip is not None,
            clip_sample_range=clip or 1.0,
        )
        return _placed(scheduler, timesteps)


# Settings of the denoiser's training, which every noise scheduler must know.
_TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip
SOLVERS = (DPMSolver(1), DPMSolver(2))
DRAWING = (DDPM(), DPMSolver(2, draws=True))  # solvers that draw noise at every step


def solvers_of(host: Host) -> tuple[DPMSolver, ...]:
    """The deterministic solvers that a policy takes; empty if it takes none of diffusers' (flow matching, say)."""
    return SOLVERS if host.takes_solvers else ()


def injects_noise(host: Host) -> bool:
    """Whether a run of the policy's own solver draws noise after its beginning too.

    Then its actions given the observation are a distribution, and only runs of the same steps share their draws.
    """
    scheduler = getattr(host.sampler_owner, "noise_scheduler", None)
    algorithm = str(getattr(scheduler, "config", {}).get("algorithm_type", ""))
    return algorithm.startswith("sde-") or bool(host.solver and host.solver.startswith(_DRAWING_SCHEDULERS))


# Starts of the class names of diffusers' noise schedulers that always draw.
_DRAWING_SCHEDULERS = ("DDPM", "EulerAncestral", "KDPM2Ancestral", "DPMSolverSDE", "LCM", "TCD")


def _placed(scheduler: Any, timesteps: Sequence[float]) -> Any:
    """The noise scheduler at the chosen timesteps. Samplers call ``set_timesteps(K)``, which would replace them."""
    scheduler.set_timesteps = partial(_place, scheduler, tuple(map(int, timesteps)))
    scheduler.set_timesteps()
    return scheduler


def _place(scheduler: Any, timesteps: tuple[int, ...], *_: Any, device: Any = None, **__: Any) -> None:
    type(scheduler).set_timesteps(scheduler, timesteps=list(timesteps), device=device)
