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
    """A deterministic solver: DPM-Solver++ of order 1 or 2M (Lu et al., 2022).

    Both are diffusers' ``DPMSolverMultistepScheduler``, which takes any decreasing timesteps. Clean actions are clipped
    as the policy's own noise scheduler clips them. Without clipping, order 1 is DDIM with eta = 0 (Song et al., ICLR
    2021). With clipping, it differs: it derives the noise again from the clipped actions.

    Attributes:
        order: 1 or 2. Order 1 reads one step alone, so a cache can leave out its steps; order 2 also reads the step
            before.
    """

    order: int

    @property
    def name(self) -> str:
        """``DPM-Solver++`` for the second order, ``DPM-Solver++ 1`` for the first."""
        return "DPM-Solver++" if self.order == 2 else f"DPM-Solver++ {self.order}"

    def check(self, timesteps: Sequence[float]) -> None:
        """Accept any decreasing timesteps."""

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> Any:
        """See `bac.solvers.Solver.scheduler`."""
        given = trained.config
        clip = clip_of(given)
        scheduler = importlib.import_module("diffusers").DPMSolverMultistepScheduler(
            **{name: given[name] for name in _TRAINED if name in given},
            thresholding=clip is not None,
            algorithm_type="dpmsolver++",
            solver_order=self.order,
        )
        if clip is not None:  # diffusers' own thresholding scales what it clips to [-1, 1]
            scheduler._threshold_sample = partial(torch.clamp, min=-clip, max=clip)
        # Samplers call set_timesteps(K) before a run, which would replace the chosen timesteps.
        scheduler.set_timesteps = partial(_place, scheduler, tuple(map(int, timesteps)))
        scheduler.set_timesteps()
        return scheduler


# Settings of the denoiser's training, which every noise scheduler must know.
_TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip
SOLVERS = (DPMSolver(1), DPMSolver(2))


def solvers_of(host: Host) -> tuple[DPMSolver, ...]:
    """The solvers that a policy takes; empty if it takes none of diffusers' (flow matching, say)."""
    return SOLVERS if host.takes_solvers else ()


def injects_noise(host: Host) -> bool:
    """Whether a run draws noise after its beginning too. Then only runs of the same steps can be compared."""
    return bool(host.solver and host.solver.startswith("DDPM"))


def _place(scheduler: Any, timesteps: tuple[int, ...], *_: Any, device: Any = None, **__: Any) -> None:
    type(scheduler).set_timesteps(scheduler, timesteps=list(timesteps), device=device)
