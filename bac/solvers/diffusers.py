"""Diffusers' solvers, at timesteps of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bac.adapters.host import Host


@dataclass(frozen=True)
class DPMSolver:
    """A deterministic solver: DPM-Solver++ of order 1 or 2M (Lu et al., 2022).

    Both are diffusers' ``DPMSolverMultistepScheduler``, which takes any decreasing timesteps. Clean actions are clipped
    as the policy's own noise scheduler clips them. Where nothing is clipped, the first order is DDIM with eta = 0 (Song
    et al., ICLR 2021); where something is, it takes the noise anew from the clipped actions.

    Attributes:
        order: 1 or 2. Order 1 looks at one step alone, so only its steps can be left out by a cache.
    """

    order: int

    @property
    def name(self) -> str:
        """``DPM-Solver++`` for the second order, ``DPM-Solver++ 1`` for the first."""
        return "DPM-Solver++" if self.order == 2 else f"DPM-Solver++ {self.order}"

    def check(self, timesteps: Sequence[float]) -> None:
        """It takes any decreasing timesteps."""

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> Any:
        """See `bac.solvers.Solver.scheduler`."""
        given = trained.config
        clips = given.get("clip_sample", given.get("thresholding", False))
        scheduler = importlib.import_module("diffusers").DPMSolverMultistepScheduler(
            **{name: given[name] for name in _TRAINED if name in given},
            thresholding=clips,
            sample_max_value=given.get("clip_sample_range", given.get("sample_max_value", 1.0)),
            algorithm_type="dpmsolver++",
            solver_order=self.order,
        )
        scheduler.set_timesteps = partial(_place, scheduler, tuple(map(int, timesteps)))
        scheduler.set_timesteps()
        return scheduler


# What the denoiser was trained under, which every noise scheduler has to know.
_TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip
SOLVERS = (DPMSolver(1), DPMSolver(2))


def solvers_of(host: Host) -> tuple[DPMSolver, ...]:
    """The solvers a policy can be put to; none where it does not take one of diffusers' (flow matching, say)."""
    return SOLVERS if host.takes_solvers else ()


def takes_fewer_steps(host: Host) -> bool:
    """Whether the policy's own solver can be told to make fewer of its steps."""
    return host.num_steps_at is not None


def injects_noise(host: Host) -> bool:
    """Whether a run draws more than its beginning, so that only runs of the same steps can be compared."""
    return bool(host.solver and host.solver.startswith("DDPM"))


def _place(scheduler: Any, timesteps: tuple[int, ...], *_: Any, device: Any = None, **__: Any) -> None:
    type(scheduler).set_timesteps(scheduler, timesteps=list(timesteps), device=device)
