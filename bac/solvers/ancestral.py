"""An ancestral solver in few steps: a weighted sum of terms, and noise of a fitted size.

DDPM (Ho et al., NeurIPS 2020) draws noise at every step, and a policy may need it: its deterministic path can lead to
other actions. From one kept timestep to the next, the dense run goes through many small draws, and the next sample
given this one is spread around a mean. This solver takes the mean from the terms of `bac.solvers.multistep`, and draws
noise with the spread that is left::

    x_next = c0 clean + c1 noise + c2 x + c3 clean_before + c4 noise_before + scale z,    z ~ N(0, 1)

`bac.solvers.regression` fits both to recorded runs. With every timestep kept they are DDPM's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.errors import ScheduleError
from bac.solvers.multistep import Coefficients, Multistep, MultistepScheduler, Stepped

_DEVIATIONS = 10  # of the noise; no draw is larger


@dataclass(frozen=True)
class Ancestral(Multistep):
    """Coefficients and noise of every step. Frozen, checked when made, and printed as a table.

    Attributes:
        coefficients: As of `Multistep`, `[K, 5]`.
        scales: Standard deviation of the noise after every step, `[K]`, at least 0, normalised action units. The last
            one is zero. One for each action dimension was no better on the policy that was tried.

    Raises:
        ScheduleError: As from `Multistep`, or there is not one scale of at least 0 for each row.
    """

    scales: tuple[float, ...] = ()
    name = "fitted ancestral"

    def __post_init__(self) -> None:
        if len(self.scales) != len(self.coefficients):
            raise ScheduleError(
                f"scales: must be {len(self.coefficients)}, one for each step, got {len(self.scales)}; tune again"
            )
        if not all(scale >= 0 for scale in self.scales):  # NaN is neither
            raise ScheduleError(f"scales: must be at least 0, got {self.scales}; tune again")
        super().__post_init__()

    def largest_noise(self, step: int) -> float:
        """See `Multistep.largest_noise`."""
        return _DEVIATIONS * self.scales[step]

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> AncestralScheduler:
        """See `bac.solvers.Solver.scheduler`."""
        self.check(timesteps)
        return AncestralScheduler(trained, timesteps, self.coefficients, self.scales)

    def __str__(self) -> str:
        head, *lines = super().__str__().splitlines()
        return "\n".join(
            [
                f"{head} {'scale':>12}",
                *(f"{line:69} {scale:12.4f}" for line, scale in zip(lines, self.scales, strict=True)),
            ]
        )


class AncestralScheduler(MultistepScheduler):
    """Steps by the coefficients, and draws noise from the sampler's generator as diffusers' DDPM does.

    Args:
        trained: As for `MultistepScheduler`.
        timesteps: Decreasing, `[K]`.
        coefficients: See `Ancestral`.
        scales: See `Ancestral`.
    """

    def __init__(
        self,
        trained: Any,
        timesteps: Sequence[float],
        coefficients: Sequence[Coefficients],
        scales: Sequence[float],
    ) -> None:
        self.scales = scales
        self._draw = importlib.import_module("diffusers.utils.torch_utils").randn_tensor
        super().__init__(trained, timesteps, coefficients)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, generator: Any = None, **options: Any
    ) -> Stepped:
        """Advance the sample from one noise level to the next.

        Args:
            model_output: The denoiser's prediction, `[B, ...]`.
            timestep: Ignored: steps are counted from `set_timesteps` on.
            sample: The current sample, `[B, ..., Da]`.
            generator: A generator, or one for each row; None for PyTorch's own.

        Raises:
            RunError: As from `MultistepScheduler.step`.
        """
        step = self._step
        after = super().step(model_output, timestep, sample, *args, **options).prev_sample
        scale = self.scales[step]
        if scale == 0.0:
            return Stepped(after)
        noise = self._draw(after.shape, generator=generator, device=after.device, dtype=after.dtype)
        return Stepped(torch.add(after, noise, alpha=scale))
