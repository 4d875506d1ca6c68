"""Chooses which chunks and blocks to probe, updates the evidence, and decides how long a response lasts.

It knows no model and no tensor.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bac.caching.block import BlockStep
from bac.guarding.evidence import Evidence
from bac.guarding.guard import Guard
from bac.guarding.probe import Errors

_SUSPICIOUS = 2.0  # evidence above which a guard probes more often
_HURRY = 5  # factor by which it probes more often
_KEPT = 100  # alarms kept for the report


@dataclass(frozen=True)
class Alarm:
    """An alarm of a guard.

    Attributes:
        chunk: Number of the action chunk, counted from 1.
        reason: The reason, in words.
    """

    chunk: int
    reason: str


@dataclass(frozen=True)
class Report:
    """Counts, evidence and alarms of a guard so far.

    Attributes:
        num_chunks: Action chunks.
        num_probed: Probed chunks among them.
        num_looks: Comparisons of a reused block with its computed output, one for each sample of a batch.
        num_exceeded: Looks whose error was above the limit.
        worst_blocks: Up to three blocks that exceeded their limits most often, with the number of times.
        evidence: Current evidence for a drift; an alarm comes at the guard's `patience`.
        num_alarms: Alarms since the guard was put on.
        alarms: The last hundred alarms.
        num_fallen_back: Chunks made by the fallback.
        falls_back: Whether the fallback will make the next chunk.
    """

    num_chunks: int
    num_probed: int
    num_looks: int
    num_exceeded: int
    worst_blocks: tuple[tuple[str, int], ...]
    evidence: float
    num_alarms: int
    alarms: tuple[Alarm, ...]
    num_fallen_back: int
    falls_back: bool

    def __str__(self) -> str:
        lines = [
            f"Guard: {self.num_chunks} chunks, {self.num_probed} probed; {self.num_exceeded} of {self.num_looks} looks "
            f"above their limit; evidence {self.evidence:.2g}; {self.num_alarms} alarms, {self.num_fallen_back} chunks "
            f"made otherwise{' (now, too)' if self.falls_back else ''}"
        ]
        lines += [f"  {block}: {count} above" for block, count in self.worst_blocks]
        lines += [f"  chunk {alarm.chunk}: {alarm.reason}" for alarm in self.alarms[-3:]]
        return "\n".join(lines)


class Monitor:
    """A guard on duty.

    Args:
        guard: Limits and options.

    Attributes:
        falls_back: Whether the fallback makes the current chunk.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.falls_back = False
        self._cells = guard.cells
        self._random = random.Random(guard.seed)
        self._evidence = Evidence(guard.allowed)
        self._wait = self._next_wait()
        self._remaining = 0.0  # chunks that the response still lasts
        self._num_chunks = self._num_probed = self._num_looks = self._num_fallen_back = self._num_alarms = 0
        self._alarms: deque[Alarm] = deque(maxlen=_KEPT)
        self._exceeded: Counter[str] = Counter()

    def begin(self) -> tuple[BlockStep, ...]:
        """Enter the next chunk. Returns the blocks at steps to probe, none in most chunks."""
        self._num_chunks += 1
        self.falls_back = self._remaining > 0
        if self.falls_back:
            self._remaining -= 1
            self._num_fallen_back += 1
            return ()
        self._wait -= 1
        if self._wait > 0:
            return ()
        return tuple(self._random.sample(self._cells, min(self.guard.num_cells, len(self._cells))))

    def note(self, errors: Mapping[BlockStep, Errors]) -> Alarm | None:
        """Take in the errors of a probed chunk, `[B]` for each block at a step. Returns the alarm, if any."""
        above = {cell: self._above(cell, rows) for cell, rows in errors.items()}
        every = np.concatenate(list(above.values()))
        for (block, _), rows in above.items():
            if rows.any():
                self._exceeded[block] += int(rows.sum())
        self._num_probed += 1
        self._num_looks += len(every)
        self._evidence.add(float(every.mean()))
        alarm = None
        if self._evidence.value >= self.guard.patience:
            share = f"{every.mean():.0%} of the last {len(every)} looks".replace("%", " %")
            limits = f"{self.guard.allowed:.1%} may be, by {self.guard.num_runs} calibration runs".replace("%", " %")
            alarm = self.alarm(f"the schedule no longer fits what is seen: {share} were above their limit, {limits}")
            self._evidence = Evidence(self.guard.allowed)
        self._wait = self._next_wait()
        return alarm

    def alarm(self, reason: str) -> Alarm:
        """Record an alarm and respond from the next chunk on."""
        alarm = Alarm(self._num_chunks, reason)
        self._num_alarms += 1
        self._alarms.append(alarm)
        if self.guard.changes_schedule:
            self._remaining = float("inf") if self.guard.cooldown is None else float(self.guard.cooldown)
        return alarm

    def reset(self) -> None:
        """End the episode, and with it a response without a cooldown."""
        if self.guard.cooldown is None:
            self._remaining = 0.0

    def report(self) -> Report:
        """The counts, evidence and alarms so far."""
        return Report(
            num_chunks=self._num_chunks,
            num_probed=self._num_probed,
            num_looks=self._num_looks,
            num_exceeded=self._exceeded.total(),
            worst_blocks=tuple(self._exceeded.most_common(3)),
            evidence=self._evidence.value,
            num_alarms=self._num_alarms,
            alarms=tuple(self._alarms),
            num_fallen_back=self._num_fallen_back,
            falls_back=self._remaining > 0,
        )

    def _above(self, cell: BlockStep, rows: Errors) -> npt.NDArray[np.bool_]:
        limit = self.guard.limits[cell[0]][cell[1]]
        return np.logical_not(rows <= (np.inf if limit is None else limit))  # negated, so that NaN is above too

    def _next_wait(self) -> int:
        """Chunks until the next probed one: uniform from 1 to twice the mean minus one."""
        every = self.guard.probe_every
        if self._evidence.value > _SUSPICIOUS:
            every = max(1, every // _HURRY)
        return self._random.randint(1, 2 * every - 1)
