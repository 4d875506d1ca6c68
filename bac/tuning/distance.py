"""Distance between two distributions of action chunks, given the observation.

A policy that draws noise during the run has no single action chunk for an observation, but a distribution of them. Two
ways to run it agree if the distributions do. The energy distance (Szekely and Rizzo, 2013) compares them from a few
chunks of each: ``2 E|X - Y| - E|X - X'| - E|Y - Y'|``. It is zero if and only if the distributions agree. Here ``|.|``
is the root mean square over a chunk's numbers, so the distance has the unit of the actions. For two single chunks it is
twice their action error.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Distance:
    """Distance of a distribution of action chunks to the policy's own, averaged over observations.

    Attributes:
        value: Energy distance, normalised action units. The estimate is unbiased, so it may be slightly negative.
        low: Lower bound of its 95 % interval over observations.
        high: Upper bound, likewise.
        shift: Root mean square difference of the mean chunks, normalised action units.
        spread: Spread of the chunks around their mean, divided by the policy's own; NaN if that is zero.
    """

    value: float
    low: float
    high: float
    shift: float
    spread: float

    def __str__(self) -> str:
        return (
            f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}], mean shift {self.shift:.4f}, "
            f"spread ratio {self.spread:.2f}"
        )


def distance(chunks: Tensor, reference: Tensor) -> Distance:
    """Distance between two sets of action chunks.

    Args:
        chunks: Independent chunks for every observation, `[draws, N, ...]`; at least two draws.
        reference: Chunks of the policy itself, `[draws, N, ...]`, from other random numbers than `chunks`.
    """
    values = energy_distances(chunks, reference)
    low, high = bootstrap(values)
    return Distance(float(values.mean()), low, high, mean_shift(chunks, reference), spread_ratio(chunks, reference))


def energy_distances(chunks: Tensor, reference: Tensor) -> Tensor:
    """Unbiased energy distance of every observation, `[N]` float64; arguments as for `distance`."""
    x, y = _by_observation(chunks), _by_observation(reference)
    between = torch.cdist(x, y).mean(dim=(1, 2))
    return (2 * between - _within(x) - _within(y)) / sqrt(x.shape[-1])


def mean_shift(chunks: Tensor, reference: Tensor) -> float:
    """Root mean square difference of the mean chunks, without the part that few draws alone would give."""
    x, y = _by_observation(chunks), _by_observation(reference)
    noise = x.var(1) / x.shape[1] + y.var(1) / y.shape[1]
    return sqrt(max(0.0, float(((x.mean(1) - y.mean(1)).square() - noise).mean())))


def spread_ratio(chunks: Tensor, reference: Tensor) -> float:
    """Standard deviation of the chunks given the observation, divided by the reference's; NaN if that is zero."""
    own, wanted = (float(_by_observation(values).var(1).mean()) for values in (chunks, reference))
    return sqrt(own / wanted) if wanted > 0 else float("nan")


def bootstrap(values: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of one value per observation: percentiles over resampled observations.

    Args:
        values: `[N]`.
        seed: Seeds the resampling, so that the same values give the same interval.
    """
    numbers = values.double().cpu().numpy()
    picks = np.random.default_rng(seed).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(numbers[picks].mean(1), [tail, 100 - tail])
    return float(low), float(high)


def _by_observation(chunks: Tensor) -> Tensor:
    """`[draws, N, ...]` to `[N, draws, numbers]`, float64."""
    return chunks.double().flatten(2).movedim(1, 0)


def _within(x: Tensor) -> Tensor:
    """Mean distance of two different draws, `[N]`."""
    draws = x.shape[1]
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=(1, 2)) / (draws * (draws - 1))
