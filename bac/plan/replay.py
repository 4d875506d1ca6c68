"""The options of replay, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bac.errors import ScheduleError

Record = Literal["second", "first", "ahead"]


@dataclass(frozen=True)
class Replay:
    """Options of replay; `bac.wrap(policy, what, replay=bac.Replay(exact=False))`.

    Attributes:
        exact: Bit-equal to the interpreted run (on a CPU). False allows other roundings, within 1e-5 of the largest
            action, which is faster.
        compile: Let PyTorch's compiler fuse what the plan repeats, and pack weights for products of few rows on a
            CPU. It takes some seconds for each distinct piece, however many steps there are, a C++ compiler, and
            ``exact=False``.
        record: When to record a plan, which takes seconds. ``"second"``: at the second call with arguments of one
            shape, so that a single call costs nothing extra. ``"first"``: at the first such call. ``"ahead"``: only by
            ``bac.plan.record(policy, batch)``, so that no robot waits for a recording.

    Raises:
        ScheduleError: `record` is unknown, or `compile` and `exact` are both true.
    """

    exact: bool = True
    compile: bool = False
    record: Record = "second"

    def __post_init__(self) -> None:
        if self.record not in get_args(Record):
            raise ScheduleError(f'record: must be "second", "first" or "ahead", got {self.record!r}')
        if self.compile and self.exact:
            raise ScheduleError("compile: a compiled plan rounds differently; allow that with exact=False")

    @property
    def sights(self) -> int:
        """The number of the call, among calls of one signature, that is recorded; 0 records only on demand."""
        return {"second": 2, "first": 1, "ahead": 0}[self.record]


EXECUTORS = ("interpret", "auto", "replay")


def replay_named(executor: str) -> bool | Replay:
    """Translate a name, as the command line uses it, to the `replay` of `bac.wrap`.

    Args:
        executor: ``interpret`` never replays. ``auto`` records at the second chunk of a shape, where possible.
            ``replay`` records at the first.

    Raises:
        ScheduleError: The name is unknown.
    """
    if executor not in EXECUTORS:
        raise ScheduleError(f"executor: must be {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}, got {executor!r}")
    return Replay(record="first") if executor == "replay" else executor == "auto"
