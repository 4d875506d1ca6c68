"""Compares ways to denoise in closed loop: what each does to success, and to the chunks that a second has.

Every way plays the same episodes as the policy itself, and all are timed in turns. The rival of a way is the policy
with fewer of its own steps, as many as take no longer: what a way is worth beyond being fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bac.denoising import Denoising
from bac.files import as_it_is, one_sentence, part, read_json, write_json
from bac.tuning import success_plot
from bac.tuning.bench import Quantiles
from bac.tuning.closed_loop import Play, checked
from bac.tuning.distance import bootstrap
from bac.tuning.intervals import Estimate, paired_success_difference, success_rate

ITSELF = "the policy itself"
_AS_FAST = 1.05  # a rival may take so many times as long: latencies are known to a few percent
Kept = Callable[[Denoising, Sequence[int], Callable[[], Sequence[float]]], Sequence[float]]
"""Results of a way's episodes: those that are kept of these seeds, or those that the call plays."""


@dataclass(frozen=True)
class Contender:
    """One way to denoise, played and timed.

    Attributes:
        name: In words.
        evaluations: Evaluations of the denoiser in a run; None if only the policy knows.
        steps_of: Solver of which it is fewer steps, and no more: ``own solver``, ``DPM-Solver++``; empty for the policy
            itself, and for what was made for it.
        as_many: Own steps that cost about as much, as `bac.tuning.rivals` counts; 0 if unknown.
        latency: Of a chunk, as it was played.
        results: One number in [0, 1] for each episode.
    """

    name: str
    evaluations: int | None
    steps_of: str
    as_many: int
    latency: Quantiles
    results: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Ways to denoise beside the policy itself, on the same episodes. It prints as a table.

    Attributes:
        contenders: The policy itself first.
        by_pytorch: Latency of the policy without `bac`.
        quantity: What results are: ``success`` or ``score``.
        margin: Largest loss that the last sentence tolerates.
        facts: What was asked for and where: policy, env, command, device, ...
    """

    contenders: tuple[Contender, ...]
    by_pytorch: Quantiles
    quantity: str = "success"
    margin: float = 0.05
    facts: Mapping[str, Any] | None = None

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
        longest = _AS_FAST * contender.latency.p50_s
        own = [
            other
            for other in self.contenders
            if other.steps_of and (other.latency.p50_s <= longest or other.as_many <= contender.as_many)
        ]
        return max(own, key=lambda other: (other.as_many, self.mean(other).value), default=None)

    def speedup(self, contender: Contender) -> float:
        """How many times faster than the policy by PyTorch, at the median."""
        return self.by_pytorch.p50_s / contender.latency.p50_s

    @property
    def recommended(self) -> Contender | None:
        """The fastest way whose interval leaves out a loss of `margin`; None if no way but the policy itself does."""
        itself, *ways = self.contenders
        kept = [way for way in ways if self.difference(way, itself).low > -self.margin]
        faster = [way for way in kept if way.latency.p50_s < itself.latency.p50_s]
        return min(faster, key=lambda way: way.latency.p50_s, default=None)

    def __str__(self) -> str:
        return "\n".join([*self._table(), "", *self._legend(), self._verdict()])

    def _table(self) -> Iterator[str]:
        itself, width = self.contenders[0], max(len(way.name) for way in self.contenders)
        latencies = f"{'p50':>8} {'p95':>8} {'Hz':>7} {'faster':>7}"
        yield (
            f"{'':{width}} {'NFE':>4} {f'{self.quantity} [95 %]':>21} {'minus policy [95 %]':>24} "
            f"{'minus as fast own steps':>24} {latencies}"
        )
        for way in self.contenders:
            rival = self.rival(way)
            lost = "" if way is itself else _signed(self.difference(way, itself))
            beyond = "" if rival is None else _signed(self.difference(way, rival))
            p50, p95 = 1e3 * way.latency.p50_s, 1e3 * way.latency.p95_s
            yield (
                f"{way.name:{width}} {way.evaluations or '-':>4} {self.mean(way)!s:>21} {lost:>24} {beyond:>24} "
                f"{p50:8.1f} {p95:8.1f} {1e3 / p50:7.1f} {f'{self.speedup(way):.1f}x':>7}"
            )

    def _legend(self) -> Iterator[str]:
        p50, p95 = 1e3 * self.by_pytorch.p50_s, 1e3 * self.by_pytorch.p95_s
        yield f"{self.num_episodes} paired episodes; by PyTorch, without bac, a chunk takes {p50:.1f} / {p95:.1f} ms"
        yield "NFE: evaluations of the denoiser; p50, p95: latency of a chunk at batch 1 [ms]; Hz: chunks per second;"
        yield "faster: than by PyTorch, as many times; as fast own steps: the most that cost no more than this way"

    def _verdict(self) -> str:
        best, n = self.recommended, self.num_episodes
        if best is None:
            return (
                f"No faster way's interval leaves out a loss of {self.margin:g} after {n} episodes: play more "
                "(--episodes), or keep the policy's own steps, replayed"
            )
        lost = _signed(self.difference(best, self.contenders[0]))
        return (
            f"Fastest whose interval leaves out a loss of {self.margin:g}: {best.name}, {lost}, "
            f"{self.speedup(best):.1f} times faster. For a verdict that allows for many looks: bac tune --episodes"
        )

    def to_document(self) -> dict[str, Any]:
        """The document that `save` writes, latencies in seconds."""
        rows = [
            {
                "name": way.name,
                "evaluations": way.evaluations,
                "steps_of": way.steps_of,
                "as_many": way.as_many,
                "p50_s": way.latency.p50_s,
                "p95_s": way.latency.p95_s,
                "results": list(way.results),
            }
            for way in self.contenders
        ]
        return {
            **(self.facts or {}),
            "quantity": self.quantity,
            "margin": self.margin,
            "by_pytorch": {"p50_s": self.by_pytorch.p50_s, "p95_s": self.by_pytorch.p95_s},
            "rows": rows,
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON, every episode's result included."""
        write_json(path, self.to_document())

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Inverse of `save`.

        Raises:
            FileError: The file cannot be read, or holds something else.
        """
        document = read_json(path, make="bac compare --policy-path CKPT --env ENV")
        with one_sentence(path):
            rows = part(document, "rows", lambda given: tuple(_read(row) for row in given))
            by_pytorch = part(document, "by_pytorch", lambda given: Quantiles(given["p50_s"], given["p95_s"]))
            quantity, margin = (part(document, name, as_it_is) for name in ("quantity", "margin"))
        return cls(rows, by_pytorch, quantity, margin)

    def plot(self, path: str | Path) -> None:
        """Draw success, or score, against chunks per second.

        Raises:
            BacError: matplotlib is not installed.
        """
        itself = self.contenders[0]
        points = [
            success_plot.Point(way.name, way.latency.p50_s, self.mean(way), way.steps_of) for way in self.contenders
        ]
        pytorch = success_plot.Point("the same by PyTorch", self.by_pytorch.p50_s, self.mean(itself))
        success_plot.draw(path, [points[0], pytorch, *points[1:]], self.quantity, self.num_episodes)


def play_all(
    play: Play,
    ways: Mapping[str, Denoising],
    seeds: range,
    *,
    at_once: int = 1,
    kept: Kept = lambda _way, _seeds, play: play(),
    progress: bool = True,
) -> dict[str, tuple[float, ...]]:
    """Let every way play the same episodes, a group of them after the other.

    All ways play a group before the next one begins. So what was played when one stops is paired.

    Args:
        play: Plays episodes.
        ways: By name; each plays every seed.
        seeds: Of the episodes.
        at_once: Episodes of a group.
        kept: Finds results that were played before, and keeps those that were not.
        progress: Show a progress bar.

    Returns:
        Results by name, in the order of `seeds`. After Ctrl-C, of the groups that all ways have played.

    Raises:
        KeyboardInterrupt: It came before the first group was whole.
        ValueError: A result is not in [0, 1].
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tqdm(total=len(ways) * len(seeds), desc="play", unit="episode", disable=not progress) as bar:
        try:
            for start in range(0, len(seeds), at_once):
                group = seeds[start : start + at_once]
                for name, way in ways.items():
                    bar.set_postfix_str(name)
                    found[name] += checked(kept(way, group, partial(play, way, group)))
                    bar.update(len(group))
        except KeyboardInterrupt:
            if not all(found.values()):
                raise
    whole = min(map(len, found.values()))
    return {name: tuple(results[:whole]) for name, results in found.items()}


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _read(row: Mapping[str, Any]) -> Contender:
    results = tuple(float(result) for result in row["results"])
    if not results or not all(0 <= result <= 1 and math.isfinite(result) for result in results):
        raise ValueError("results: must be numbers in [0, 1], at least one")
    latency = Quantiles(float(row["p50_s"]), float(row["p95_s"]))
    words, counts = (str(row["name"]), str(row["steps_of"])), (row["evaluations"], int(row["as_many"]))
    return Contender(words[0], counts[0], words[1], counts[1], latency, results)
