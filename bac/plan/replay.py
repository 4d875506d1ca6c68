"""How a denoising run is replayed: the options of the fast executor, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bac.errors import ScheduleError

Record = Literal["second", "first", "ahead"]


@dataclass(frozen=True)
class Replay:
    """Options of replay; `bac.wrap(policy, what, replay=bac.Replay(exact=False))`.

    Attributes:
        exact: Bit-equal to the interceptors (on a CPU). False allows another order of roundings, which is faster:
            within 1e-5 of the largest action.
        compile: Let PyTorch's compiler fuse the plan, which takes minutes and a C++ compiler; with ``exact=False``.
        record: When a plan is recorded, which takes seconds. ``"second"``: when arguments of one shape are met for the
            second time, so that a single call costs nothing extra. ``"first"``: when they are met first. ``"ahead"``:
            only by ``bac.plan.record(policy, batch)``, so that no robot waits for a recording.

    Raises:
        ScheduleError: `record` is unknown, or a compiled plan is to be exact.
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
        """How often arguments of one signature are met before they are recorded; 0 for only on demand."""
        return {"second": 2, "first": 1, "ahead": 0}[self.record]


EXECUTORS = ("interpret", "auto", "replay")


def replay_named(executor: str) -> bool | Replay:
    """What `bac.wrap` takes as `replay`, by the names that the command line and ``BAC_EXECUTOR`` use.

    Args:
        executor: ``interpret``: never. ``auto``: from the second chunk of a shape on, where that is possible.
            ``replay``: from the first.

    Raises:
        ScheduleError: The name is unknown.
    """
    if executor not in EXECUTORS:
        raise ScheduleError(f"executor: must be {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}, got {executor!r}")
    return Replay(record="first") if executor == "replay" else executor == "auto"
