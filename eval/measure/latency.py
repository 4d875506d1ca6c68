"""Latency of many cells at batch 1 on one thread, on a machine that others may be using.

Absolute times drift with other processes' load, so cells are measured **interleaved**: every round runs each cell once,
and a speed-up compares medians of the same rounds. If the wall clock is well above the CPU time, the process lost its
core during the sample; the sample is rejected and counted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bac.tuning.timing import interleaved

BUSY = 1.15
MIN_CLEAN = 3


@dataclass(frozen=True)
class Latency:
    """Time from observation batch to action chunk, batch 1, one thread.

    Attributes:
        p50_ms: Median [ms].
        p95_ms: 95th percentile [ms].
        speedup: Median of the first cell (eager dense) over this median.
        num_samples: Rounds measured.
        num_rejected: Rounds in which another process held the core.
        clock: ``wall``, or ``cpu`` if a cell has fewer than `MIN_CLEAN` clean samples; then the times are CPU times.
    """

    p50_ms: float
    p95_ms: float
    speedup: float
    num_samples: int
    num_rejected: int
    clock: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def measure(
    cells: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1, progress: bool = True
) -> dict[str, Latency]:
    """Time every cell `rounds` times, round-robin. Speed-ups refer to the first cell.

    Args:
        cells: Name to a call that makes one action chunk.
        rounds: Samples per cell, at least 1.
        warmup: Untimed calls of each cell before the first round.
        progress: Show a progress bar.

    Raises:
        ValueError: No cell, or no round.
    """
    if not cells or rounds < 1:
        raise ValueError(f"measure: needs at least one cell and one round, got {len(cells)} and {rounds}")
    with _one_thread():
        return summarise(interleaved(cells, rounds, warm_up=warmup, progress=progress))


def summarise(samples: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Latency]:
    """Quantiles over clean samples, or over all samples' CPU times if too few are clean.

    Args:
        samples: Cell name to (wall, CPU) seconds of each round.
    """
    chosen = {name: _clean(np.asarray(pairs, dtype=float)) for name, pairs in samples.items()}
    use_cpu = any(len(clean) < min(MIN_CLEAN, len(samples[name])) for name, clean in chosen.items())
    if use_cpu:  # one clock for all, or the ratios would mean nothing
        times = {name: np.asarray(pairs, dtype=float)[:, 1] for name, pairs in samples.items()}
    else:
        times = {name: clean[:, 0] for name, clean in chosen.items()}
    reference = float(np.median(next(iter(times.values()))))
    return {
        name: Latency(
            p50_ms=1e3 * float(np.median(seconds)),
            p95_ms=1e3 * float(np.quantile(seconds, 0.95)),
            speedup=reference / float(np.median(seconds)),
            num_samples=len(samples[name]),
            num_rejected=len(samples[name]) - len(chosen[name]),
            clock="cpu" if use_cpu else "wall",
        )
        for name, seconds in times.items()
    }


def steps_within(budget_ms: float, few: tuple[int, float], many: tuple[int, float]) -> int:
    """The most denoising steps that a budget buys, if latency is a fixed part plus a part per step.

    Args:
        budget_ms: Latency budget [ms].
        few: A measured (number of steps, latency [ms]).
        many: Another measured pair, with more steps.

    Returns:
        Whole steps, 1 to 99; with 100 the rival would not have fewer steps than dense.

    Raises:
        ValueError: More steps took no longer, so other processes disturbed the measurement.
    """
    per_step = (many[1] - few[1]) / (many[0] - few[0])
    if per_step <= 0:
        raise ValueError(
            f"latency: {many[0]} steps took {many[1]:.1f} ms and {few[0]} took {few[1]:.1f} ms; the machine is too "
            "busy to measure on. Measure again when it is idle: python -m eval.compare phase=latency"
        )
    fixed = few[1] - few[0] * per_step
    return min(99, max(1, int((budget_ms - fixed) // per_step)))


def _clean(pairs: np.ndarray) -> np.ndarray:
    return pairs[pairs[:, 0] <= BUSY * pairs[:, 1]]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
