"""A linear multistep solver with a table of coefficients, which can be fitted.

The next sample is a weighted sum of five terms::

    x_next = c0 clean + c1 noise + c2 x + c3 clean_before + c4 noise_before

where the denoiser predicts the clean actions and the noise at this step and at the one before. DDIM (Song et al., ICLR
2021) has c0 = alpha and c1 = sigma of the next noise level, and zeros; DPM-Solver++(2M) (Lu et al., 2022) is another
choice. Separate coefficients for every step make a non-stationary solver (Shaul et al., 2024, arXiv 2403.01329, who
learn them by gradient; `bac.solvers.fitting` solves for them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bac.errors import RunError, ScheduleError

TERMS = ("clean", "noise", "sample", "clean before", "noise before")
Coefficients = tuple[float, ...]
LARGEST = 1e18  # of a sample of order one, after any step; its square is still a float32


@dataclass(frozen=True)
class Multistep:
    """Coefficients of every step. Frozen, checked when made, and printed as a table.

    Attributes:
        coefficients: `[K, 5]` in order of `TERMS`. The first row has only three, as no step comes before.

    Raises:
        ScheduleError: There is no row, a row has another length, or samples would not stay finite.
    """

    coefficients: tuple[Coefficients, ...]
    name = "fitted multistep"

    def __post_init__(self) -> None:
        if not self.coefficients:
            raise ScheduleError("coefficients: must be one row for each step, got none")
        largest = 1.0  # magnitude of the sample; clean actions and noise are of order one
        for step, row in enumerate(self.coefficients):
            wanted = len(TERMS) if step else 3
            if len(row) != wanted:
                raise ScheduleError(
                    f"coefficients of step {step}: must be {wanted} ({', '.join(TERMS[:wanted])}), got {len(row)}"
                )
            of_sample, *others = map(abs, (row[2], *row[:2], *row[3:]))
            largest = of_sample * largest + sum(others) + self.largest_noise(step)
            if not largest <= LARGEST:  # NaN is neither
                raise ScheduleError(
                    f"coefficients of step {step}: must be finite and keep samples below {LARGEST:g}, got {row}; "
                    "tune again"
                )

    def largest_noise(self, step: int) -> float:
        """The largest number that a step draws and adds; a deterministic solver draws none."""
        return 0.0

    def check(self, timesteps: Sequence[float]) -> None:
        """Refuse timesteps that are not one for each step.

        Raises:
            ScheduleError: There are more or fewer timesteps than rows of coefficients.
        """
        if len(timesteps) != len(self.coefficients):
            raise ScheduleError(
                f"timesteps: must be {len(self.coefficients)}, one for each row of coefficients, got {len(timesteps)}"
            )

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> MultistepScheduler:
        """See `bac.solvers.Solver.scheduler`."""
        self.check(timesteps)
        return MultistepScheduler(trained, timesteps, self.coefficients)

    def rows(self, times: Sequence[float]) -> tuple[Coefficients, ...]:
        """See `bac.solvers.adams_bashforth.FlowSolver.rows`."""
        self.check(times)
        return self.coefficients

    def __str__(self) -> str:
        head = f"{'step':>4} " + " ".join(f"{term:>12}" for term in TERMS)
        lines = [
            f"{step:4} " + " ".join(f"{value:12.4f}" for value in row) for step, row in enumerate(self.coefficients)
        ]
        return "\n".join([head, *lines])


class Stepped(NamedTuple):
    """The result of a step, under diffusers' name for it."""

    prev_sample: Tensor


class MultistepScheduler:
    """Steps by the coefficients. It has the interface of a noise scheduler of diffusers.

    Args:
        trained: The denoiser's own noise scheduler: noise levels, kind of prediction, clipping.
        timesteps: Decreasing, `[K]`.
        coefficients: See `Multistep`.
    """

    order = 1  # evaluations per step, in diffusers' sense
    init_noise_sigma = 1.0

    def __init__(self, trained: Any, timesteps: Sequence[float], coefficients: Sequence[Coefficients]) -> None:
        self.config, self.alphas_cumprod = trained.config, trained.alphas_cumprod
        self.add_noise = trained.add_noise
        self.timesteps = torch.tensor([int(timestep) for timestep in timesteps])
        self.coefficients = coefficients
        self.clip = clip_of(trained.config)
        self.predicts = trained.config.get("prediction_type", "epsilon")
        self.levels = [level(float(self.alphas_cumprod[int(timestep)])) for timestep in timesteps]
        self.set_timesteps()

    def set_timesteps(self, *_: Any, device: Any = None, **__: Any) -> None:
        """Begin a run. The timesteps do not change."""
        self.timesteps = self.timesteps.to(device or self.timesteps.device)
        self._step = 0
        self._before: tuple[Tensor, ...] = ()

    def scale_model_input(self, sample: Tensor, *_: Any) -> Tensor:
        """Return the sample unchanged; the denoiser takes it unscaled."""
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *_: Any, **__: Any) -> Stepped:
        """Advance the sample from one noise level to the next.

        Args:
            model_output: The denoiser's prediction, `[B, ...]`.
            timestep: Ignored: steps are counted from `set_timesteps` on.
            sample: The current sample, `[B, ...]`.

        Raises:
            RunError: A run makes more steps than there are coefficients for.
        """
        if self._step == len(self.levels):
            raise RunError(
                f"step: these coefficients are for {len(self.levels)} steps, and this run makes another one. A run "
                "begins with set_timesteps; one of another length needs a solver of its own: bac.tune(policy, batches)"
            )
        newest = predictions(model_output, sample, self.levels[self._step], self.predicts, self.clip)
        after = self.combine((*newest, sample, *self._before))
        self._before = newest
        self._step += 1
        if self._step == len(self.levels) and self.clip is not None:  # a weighted sum may leave the actions' range
            after = after.clamp(-self.clip, self.clip)
        return Stepped(after)

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        """The weighted sum of this step's terms."""
        first, *others = self.coefficients[self._step]
        total = terms[0] * first
        for term, weight in zip(terms[1:], others, strict=True):
            total = torch.add(total, term, alpha=weight)
        return total


def level(alpha_cumprod: float) -> tuple[float, float]:
    """Shares of clean actions and of noise in a sample."""
    return sqrt(alpha_cumprod), sqrt(1 - alpha_cumprod)


def clip_of(config: Any) -> float | None:
    """Half-width of the clip of clean actions, or None.

    Raises:
        ScheduleError: The policy's noise scheduler thresholds dynamically, which is no clip.
    """
    if config.get("thresholding", False):  # diffusers looks at it before `clip_sample`
        largest = float(config.get("sample_max_value", 1.0))
        if largest != 1.0:  # at 1 it clips to [-1, 1]
            raise ScheduleError(
                f"noise scheduler: thresholds dynamically, up to sample_max_value={largest:g}, which no other solver "
                "than the policy's own does; keep its own steps"
            )
        return largest
    return float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", False) else None


def predictions(
    output: Tensor, sample: Tensor, shares: tuple[float, float], predicts: str, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Clean actions (clipped) and noise, from a denoiser that predicts either of them or velocity.

    Raises:
        ScheduleError: `predicts` is none of these.
    """
    clean_share, noise_share = shares
    if predicts == "epsilon":
        clean, noise = (sample - noise_share * output) / clean_share, output
    elif predicts == "sample":
        clean, noise = output, (sample - clean_share * output) / noise_share
    elif predicts == "v_prediction":
        clean, noise = clean_share * sample - noise_share * output, clean_share * output + noise_share * sample
    else:
        raise ScheduleError(f"prediction_type: must be epsilon, sample or v_prediction, got {predicts!r}")
    return (clean if clip is None else clean.clamp(-clip, clip)), noise
