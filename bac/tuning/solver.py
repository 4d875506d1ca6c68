"""Solvers that a policy with a diffusers noise scheduler can be put to, at timesteps of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bac.adapters.host import Host

Undo = Callable[[], None]


@dataclass(frozen=True)
class Solver:
    """A deterministic solver: DPM-Solver++ of order 1 or 2M (Lu et al., 2022).

    Both are diffusers' ``DPMSolverMultistepScheduler``, which takes any decreasing timesteps. Clean actions are clipped
    as the policy's own noise scheduler clips them; where nothing is clipped the first order is DDIM with eta = 0 (Song
    et al., ICLR 2021), and where something is, the noise is taken anew from what was clipped.

    Attributes:
        name: In tables.
        order: 1 or 2. Only order 1 looks at one step alone, so only its steps can be left out by a cache.
    """

    name: str
    order: int

    def apply(self, owner: Any, timesteps: tuple[int, ...]) -> Undo:
        """Let later runs take these timesteps.

        Args:
            owner: What holds ``noise_scheduler`` and ``num_inference_steps``.
            timesteps: Decreasing, `[K]`.

        Returns:
            A call that puts back what was there.
        """
        given = owner.noise_scheduler.config
        clips = given.get("clip_sample", given.get("thresholding", False))
        scheduler = importlib.import_module("diffusers").DPMSolverMultistepScheduler(
            **{name: given[name] for name in _TRAINED if name in given},
            thresholding=clips,
            sample_max_value=given.get("clip_sample_range", given.get("sample_max_value", 1.0)),
            algorithm_type="dpmsolver++",
            solver_order=self.order,
        )
        scheduler.set_timesteps = partial(_place, scheduler, timesteps)
        scheduler.set_timesteps()
        return put_in_place(owner, scheduler, len(timesteps))


# What the denoiser was trained under, which every noise scheduler has to know.
_TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip
SOLVERS = (Solver("DPM-Solver++ 1", 1), Solver("DPM-Solver++", 2))


def solvers_of(host: Host) -> tuple[Solver, ...]:
    """The solvers a policy can be put to; none where it does not take one of diffusers' (flow matching, say)."""
    return SOLVERS if host.takes_solvers else ()


def takes_fewer_steps(host: Host) -> bool:
    """Whether the policy's own solver can be told to make fewer of its steps."""
    return host.num_steps_at is not None


def set_num_steps(host: Host, num_steps: int) -> Undo:
    """Let later runs of the policy's own solver make so many steps, spaced as it spaces them.

    Most policies read the number from their configuration, so one that is saved meanwhile keeps it.

    Args:
        host: One that `takes_fewer_steps`.
        num_steps: Denoising steps K.

    Returns:
        A call that puts back what was there.
    """
    assert host.num_steps_at is not None
    owner, attribute = host.num_steps_at
    before = getattr(owner, attribute)
    setattr(owner, attribute, num_steps)
    return partial(setattr, owner, attribute, before)


def injects_noise(host: Host) -> bool:
    """Whether a run draws more than its beginning, so that only runs of the same steps can be compared."""
    return bool(host.solver and host.solver.startswith("DDPM"))


def _place(scheduler: Any, timesteps: tuple[int, ...], *_: Any, device: Any = None, **__: Any) -> None:
    type(scheduler).set_timesteps(scheduler, timesteps=list(timesteps), device=device)


def put_in_place(owner: Any, noise_scheduler: Any, num_inference_steps: int) -> Undo:
    """Let later runs take a noise scheduler and its number of steps.

    Args:
        owner: What holds ``noise_scheduler`` and ``num_inference_steps``.
        noise_scheduler: As diffusers' samplers use one.
        num_inference_steps: Denoising steps K.

    Returns:
        A call that puts back what was there.
    """
    before = owner.noise_scheduler, owner.num_inference_steps

    def put_back() -> None:
        owner.noise_scheduler, owner.num_inference_steps = before

    owner.noise_scheduler, owner.num_inference_steps = noise_scheduler, num_inference_steps
    return put_back
