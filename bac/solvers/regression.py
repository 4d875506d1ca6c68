"""Fits an ancestral solver to recorded runs of a policy that draws noise at every step.

The dense runs are recorded: at every timestep the sample, and the clean actions and the noise that the denoiser
predicts there. For two kept timesteps, the later sample is regressed on the terms known at the earlier one. That gives
the mean of the step, and the spread of what is left is the noise to inject. No evaluation of the denoiser is needed, so
a search may try many timesteps.

Unlike in `bac.solvers.fitting`, the squared distance is minimised: what is left over is noise, not error.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from bac.errors import ScheduleError
from bac.solvers.ancestral import Ancestral
from bac.solvers.fitting import END
from bac.solvers.multistep import TERMS, Coefficients, clip_of, level, predictions

RIDGE = 1e-4  # of the mean square of a term of size 1; pulls towards DDPM's own step
Terms = tuple[Tensor, Tensor, Tensor]  # clean actions, noise, sample, `[B, ..., Da]` each


class Regression:
    """Fits ancestral solvers to the recorded runs of one policy.

    Args:
        trained: The policy's own noise scheduler: noise levels, kind of prediction, clipping.
        samples: Samples by timestep, and at `END`, `[B, ..., Da]` each; see `bac.solvers.recording`.
        outputs: The denoiser's outputs by timestep.
    """

    def __init__(self, trained: Any, samples: dict[int, Tensor], outputs: dict[int, Tensor]) -> None:
        predicts, clip = trained.config.get("prediction_type", "epsilon"), clip_of(trained.config)
        self.levels = {timestep: level(float(trained.alphas_cumprod[timestep])) for timestep in outputs}
        self.levels[END] = (1.0, 0.0)
        self.samples = {timestep: sample.double() for timestep, sample in samples.items()}
        self.predicted = {
            timestep: predictions(output.double(), self.samples[timestep], self.levels[timestep], predicts, clip)
            for timestep, output in outputs.items()
        }

    def __call__(self, timesteps: Sequence[int]) -> Ancestral:
        """Fit the solver at these timesteps.

        Args:
            timesteps: Decreasing, and among those of the recorded runs.

        Raises:
            ScheduleError: `timesteps` do not decrease, or one was not recorded.
        """
        known = [int(timestep) for timestep in timesteps if int(timestep) in self.predicted]
        if len(known) < len(timesteps) or known != sorted(set(known), reverse=True):
            raise ScheduleError(
                f"timesteps: must decrease, and be some of the {len(self.predicted)} of the recorded runs, got "
                f"{tuple(timesteps)}"
            )
        steps = zip([None, *known], known, [*known[1:], END], strict=False)
        fitted = [self.step(before, timestep, later) for before, timestep, later in steps]
        return Ancestral(tuple(row for row, _ in fitted), tuple(scale for _, scale in fitted))

    def step(self, before: int | None, timestep: int, later: int) -> tuple[Coefficients, float]:
        """Coefficients and noise scale of one step.

        Args:
            before: The kept timestep before; None at the first step.
            timestep: Where the step begins.
            later: Where it ends; `END` after the last, which injects no noise.
        """
        row, left = self.residual(before, timestep, later)
        return row, 0.0 if later == END else float(left.square().mean().sqrt())

    def residual(self, before: int | None, timestep: int, later: int) -> tuple[Coefficients, Tensor]:
        """Coefficients of one step, and what they leave of the recorded samples, `[B, ..., Da]`; see `step`."""
        terms = (*self.predicted[timestep], self.samples[timestep], *(() if before is None else self.predicted[before]))
        wanted = self.samples[later]
        columns = torch.stack([term.flatten() for term in terms], dim=-1)
        prior = torch.zeros(len(terms)).to(columns)
        prior[: len(TERMS) - 2] = torch.tensor(posterior(self.levels[timestep], self.levels[later])[0]).to(prior)
        pull = RIDGE * wanted.numel() * torch.eye(len(terms)).to(prior)
        rest = wanted.flatten() - columns @ prior
        found = prior + torch.linalg.solve(columns.T @ columns + pull, columns.T @ rest)
        return tuple(found.tolist()), (wanted.flatten() - columns @ found).unflatten(0, wanted.shape)


def posterior(now: tuple[float, float], later: tuple[float, float]) -> tuple[tuple[float, float, float], float]:
    """DDPM's own step between two noise levels: coefficients of clean actions, noise and sample, and noise scale.

    Ho et al. (2020), equation 7, with the product of the steps in between as one step; the "small" variance.

    Args:
        now: Shares of clean actions and of noise in the sample, as from `level`.
        later: The same of the next sample, which is less noisy.
    """
    (clean_now, noise_now), (clean_later, noise_later) = now, later
    kept = (clean_now / clean_later) ** 2
    added = 1 - kept
    clean = clean_later * added / noise_now**2
    sample = sqrt(kept) * noise_later**2 / noise_now**2
    return (clean, 0.0, sample), noise_later / noise_now * sqrt(max(added, 0.0))
