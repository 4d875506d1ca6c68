"""What episodes say of ways to denoise: how often each succeeds, beside the policy itself and beside its rival.

The rival of what was made for a policy is the policy with the most of its own steps that take no longer: what it is
worth beyond being fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bac.tuning.bench import Quantiles
from bac.tuning.distance import bootstrap
from bac.tuning.intervals import Estimate, paired_success_difference, success_rate
from bac.tuning.rivals import AS_FAST
from bac.tuning.sequential import bounds

ITSELF = "the policy itself"
CONFIDENCE = 0.95  # of the verdict


@dataclass(frozen=True)
class Contender:
    """One way to denoise, played and timed.

    Attributes:
        name: In words.
        evaluations: Evaluations of the denoiser in a run; None if only the policy knows.
        steps_of: Solver of which it is fewer steps, and no more: ``own solver``, ``DPM-Solver++``; empty for the policy
            itself, and for what was made for it.
        as_many: Own steps that cost about as much, as `bac.tuning.rivals` counts; 0 if unknown.
        latency: Of a chunk, at batch 1.
        results: One number in [0, 1] for each episode.
    """

    name: str
    evaluations: int | None
    steps_of: str
    as_many: int
    latency: Quantiles
    results: tuple[float, ...]


@dataclass(frozen=True)
class Standings:
    """Ways to denoise beside the policy itself, on the same episodes.

    Attributes:
        contenders: The policy itself first.
        by_pytorch: Latency of the policy without `bac`.
        quantity: What results are: ``success`` or ``score``.
        margin: A way may lose less than this, in (0, 1).
    """

    contenders: tuple[Contender, ...]
    by_pytorch: Quantiles
    quantity: str = "success"
    margin: float = 0.05

    @property
    def num_episodes(self) -> int:
        """Episodes that every way has played."""
        return len(self.contenders[0].results)

    def mean(self, contender: Contender) -> Estimate:
        """Success rate with Wilson's interval, or mean score with bootstrap's, 95 %."""
        if self.quantity == "success":
            return success_rate(sum(map(bool, contender.results)), len(contender.results))
        return Estimate(float(np.mean(contender.results)), *bootstrap(torch.tensor(contender.results)))

    def difference(self, contender: Contender, other: Contender) -> Estimate:
        """Contender minus other, pair by pair: Newcombe's interval, or bootstrap's for scores, 95 %."""
        if self.quantity == "success":
            return paired_success_difference(*([bool(r) for r in way.results] for way in (other, contender)))
        pairs = torch.tensor(contender.results) - torch.tensor(other.results)
        return Estimate(float(pairs.mean()), *bootstrap(pairs))

    def rival(self, contender: Contender) -> Contender | None:
        """The policy with the most of its own steps that cost no more than a way that was made; None if there is none.

        Of several with as many steps it is the one that did best.
        """
        if contender.steps_of or contender is self.contenders[0]:
            return None
        longest = AS_FAST * contender.latency.p50_s
        own = [other for other in self.contenders if other.steps_of or other is self.contenders[0]]
        as_fast = [one for one in own if one.latency.p50_s <= longest or 0 < one.as_many <= contender.as_many]
        return max(as_fast, key=lambda one: (one.evaluations or 0, self.mean(one).value), default=None)

    def speedup(self, contender: Contender) -> float:
        """How many times faster than the policy by PyTorch, at the median."""
        return self.by_pytorch.p50_s / contender.latency.p50_s

    @property
    def faster(self) -> tuple[Contender, ...]:
        """Ways that are faster than the policy itself."""
        itself, *ways = self.contenders
        return tuple(way for way in ways if way.latency.p50_s < itself.latency.p50_s)

    def bounds(self, way: Contender) -> tuple[float, float]:
        """Bounds of way minus policy for the verdict. They hold for all faster ways together, however often one looks.

        A table that is looked at, played on, and looked at again would show by chance what one look at one way does
        not, so the interval of `difference` is not enough. These are the bounds of a bettor (`bac.tuning.sequential`),
        with the confidence shared among the faster ways.
        """
        pairs = np.subtract(way.results, self.contenders[0].results, dtype=float)
        # One look, at the end: where tasks take turns, every one has had as many as the others there.
        return bounds(pairs, confidence=self.confidence_of_each, every=max(1, len(pairs)))

    @property
    def confidence_of_each(self) -> float:
        """Confidence of each faster way's bounds."""
        return 1 - (1 - CONFIDENCE) / max(1, len(self.faster))

    @property
    def recommended(self) -> Contender | None:
        """The fastest way that is shown to lose less than `margin`; None if there is none.

        None too if the policy itself hardly succeeds.
        """
        shown = [way for way in self.faster if self.bounds(way)[0] > -self.margin]
        return min(shown, key=lambda way: way.latency.p50_s, default=None) if self.has_something_to_lose else None

    @property
    def has_something_to_lose(self) -> bool:
        """Whether the policy itself succeeds more often than `margin`, by its interval."""
        return self.mean(self.contenders[0]).low > self.margin
