"""Times the finalists of a tuning, and looks again where a timing and the cost model disagree.

One disturbance (another program starts, the clock stops for a moment) makes a chunk look slow once, and a tuner that
believes it settles for fewer steps than the budget buys. A disturbance only ever makes a call slower, so of two looks
the lower counts. The second look is shared with a way whose latency is known, to tell a slow way from a slow machine.
"""

from __future__ import annotations

from bac.denoising import Denoising
from bac.tuning.bench import Bench, Quantiles

DOUBTFUL = 1.5  # times the expected median
BUSY = 1.25  # times its earlier median, from which on a known way says that the machine is busy


class Stopwatch:
    """Times ways to denoise on one bench.

    Args:
        bench: The bench.
        rounds: Chunks to time of each way.

    Attributes:
        notes: What happened at second looks, in sentences.
    """

    def __init__(self, bench: Bench, rounds: int) -> None:
        self._bench, self._rounds = bench, rounds
        self._known: tuple[Denoising, Quantiles] | None = None
        self.notes: list[str] = []

    def time(self, way: Denoising, expected_s: float, limit_s: float) -> Quantiles:
        """Latency of a way to denoise.

        Args:
            way: The way.
            expected_s: Median that the cost model expects [s].
            limit_s: Largest 95th percentile that is wanted [s]; infinite if there is no such limit.
        """
        (found,) = self._bench.latencies([way], self._rounds)
        if found.p50_s > DOUBTFUL * expected_s or expected_s <= limit_s < found.p95_s:
            found = self._second_look(way, found, expected_s)
        self._known = way, found
        return found

    def _second_look(self, way: Denoising, first: Quantiles, expected_s: float) -> Quantiles:
        known = [] if self._known is None or self._known[0] == way else [self._known]
        again, *others = self._bench.latencies([way, *(beside for beside, _ in known)], self._rounds)
        best = Quantiles(min(first.p50_s, again.p50_s), min(first.p95_s, again.p95_s))
        words = f"timed again: {way.name} took {_ms(first)} where {1e3 * expected_s:.1f} ms were expected"
        words += f", and {_ms(again)} the second time"
        for (beside, before), now in zip(known, others, strict=True):
            ratio = now.p50_s / before.p50_s
            busy = "; the machine is busy" if ratio > BUSY else ""
            words += f", while {beside.name} took {ratio:.2f} times its earlier time{busy}"
        self.notes.append(words)
        return best


def _ms(latency: Quantiles) -> str:
    return f"{1e3 * latency.p50_s:.1f} ms (p95 {1e3 * latency.p95_s:.1f})"
