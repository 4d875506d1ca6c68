"""The drift guard: limits, options and response in one frozen value, which draws itself and has a JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np

from bac.caching.block import BlockStep
from bac.caching.schedule import Schedule
from bac.errors import CalibrationError, MismatchError, ScheduleError
from bac.files import as_it_is, as_number, one_sentence, part, read_json, write_json
from bac.fingerprint import Fingerprint
from bac.guarding.evidence import allowed_share
from bac.guarding.probe import Errors

_FORMAT, _VERSION = "bac.guard", 1
_MAKE = "bac guard --policy-path CKPT --env ENV"
_DIGITS = 5  # significant digits of a limit on disk

Response: TypeAlias = Literal["log", "dense"] | Schedule


@dataclass(frozen=True, eq=False)
class Guard:
    """Checks, while a policy runs, that a fixed schedule still holds.

    `bac.guarding.calibrate` makes a guard, ``bac.wrap(..., guard=guard)`` puts it on duty. It draws itself::

        Guard: 6 watched cells of 2 blocks x 4 steps, limits from 64 runs; 6.9 % of looks may exceed them
          one chunk in 150 is probed at 16 cells; 1000 probed chunks or more to a false alarm; then: log
          ticks.0  #12#        # computed or not watched  0-9 limit of the relative error in tenths  + 1 or more
          ticks.1  #13+

    A *cell* is a block at a step (`bac.caching.block.BlockStep`). A *look* compares the reused output of one cell, for
    one sample, with the computed output.

    The guarantee is that of `bac.guarding.evidence`: suppose that the share of looks above their limits in a probed
    chunk is at most `allowed`, in expectation given all earlier chunks. Then a false alarm takes at least `patience`
    probed chunks, on average. Two faults raise an alarm at once, outside this guarantee: actions that are not finite,
    and actions outside the calibrated range widened by half of it on either side.

    Attributes:
        limits: By block and step, `[K]`, the largest relative L1 error that counts as usual; None where the block
            updates or is not watched.
        allowed: Share of looks that may exceed their limit, in (0, 1).
        num_runs: Runs that the limits were calibrated on.
        schedule_hash: Hash of the schedule that the limits are for.
        estimator: Name of the schedule's estimator.
        action_range: Smallest and largest output of the sampler, by action dimension, in its units (normalised ones,
            for most policies); None checks only that actions are finite.
        fingerprint: Identity of the policy.
        probe_every: Mean number of chunks from one probed to the next; five times fewer while the evidence is above 2.
            A probed chunk is interpreted: on a CPU about four times as long as a replayed one, so 150 costs 2 to 3 %.
        num_cells: Cells compared in a probed chunk.
        patience: Least mean number of probed chunks to a false alarm. The alarm comes when the evidence reaches it.
        response: ``"log"`` warns once and counts alarms. ``"dense"`` computes every block from the next denoising run
            on. A denser schedule is followed from the next run on. While these two last, nothing is probed.
        cooldown: Action chunks that the response lasts; None: until ``policy.reset()``. Then runs follow the schedule
            again, and the evidence restarts at zero.
        seed: Seeds the choice of chunks and cells.

    Raises:
        ScheduleError: A value is out of range.
    """

    limits: Mapping[str, tuple[float | None, ...]]
    allowed: float
    num_runs: int
    schedule_hash: str
    estimator: str = "hold"
    action_range: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    probe_every: int = 150
    num_cells: int = 16
    patience: int = 1000
    response: Response = "log"
    cooldown: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("probe_every", "num_cells", "patience", "cooldown", "num_runs"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if (value is not None or name != "cooldown") and (not whole or value < 1):
                raise ScheduleError(f"guard: {name} must be a whole number of at least 1, got {value!r:.80}")
        for name in ("schedule_hash", "estimator"):
            if not isinstance(getattr(self, name), str):
                raise ScheduleError(f"guard: {name} must be a text, got {getattr(self, name)!r:.80}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ScheduleError(f"guard: seed must be a whole number, got {self.seed!r:.80}")
        if not 0 < self.allowed < 1:
            raise ScheduleError(f"guard: allowed must be in (0, 1), got {self.allowed!r}")
        if not isinstance(self.response, Schedule) and self.response not in ("log", "dense"):
            raise ScheduleError(f'guard: response must be "log", "dense" or a denser schedule, got {self.response!r}')
        self._check_range()
        object.__setattr__(self, "limits", MappingProxyType({b: tuple(row) for b, row in self.limits.items()}))
        if len({len(row) for row in self.limits.values()}) > 1:
            raise ScheduleError("guard: limits must be as many for each block, one for each denoising step")
        if bad := [limit for row in self.limits.values() for limit in row if limit is not None and not limit >= 0]:
            raise ScheduleError(f"guard: limits must be numbers of at least 0, got {bad[0]}")
        if not self.cells:
            raise ScheduleError("guard: the schedule reuses nothing, so there is nothing to watch")

    def _check_range(self) -> None:
        if self.action_range is None:
            return
        if len(self.action_range) != 2 or len(self.action_range[0]) != len(self.action_range[1]):
            raise ScheduleError("guard: action_range must be the smallest and the largest actions, one per dimension")
        if not all(low <= high for low, high in zip(*self.action_range, strict=True)):  # NaN is neither
            raise ScheduleError("guard: action_range must have its smallest actions below its largest")

    @classmethod
    def of_errors(
        cls, schedule: Schedule, errors: Mapping[BlockStep, Errors], *, quantile: float = 0.99, **options: Any
    ) -> Guard:
        """Make a guard from measured errors.

        Args:
            schedule: The schedule under which they were measured.
            errors: Errors of every block and step to watch, `[n]` each.
            quantile: The limit is this quantile of the errors, in (0, 1].
            options: Further attributes.

        Raises:
            CalibrationError: There are fewer than two runs, or an error is NaN.
        """
        if not 0 < quantile <= 1:
            raise CalibrationError(f"quantile: must be in (0, 1], got {quantile}")
        num_runs = min((len(values) for values in errors.values()), default=0)
        if num_runs < 2:
            raise CalibrationError(f"batches: a guard needs at least two runs, 100 or more to be sharp, got {num_runs}")
        # An order statistic rather than an interpolated quantile: `allowed_share` bounds it for any distribution.
        rank = min(num_runs, int(np.ceil(quantile * num_runs)))
        limits: dict[str, list[float | None]] = {name: [None] * schedule.num_steps for name in schedule.block_names}
        for (block, step), values in errors.items():
            if np.isnan(values).any():
                raise CalibrationError(f"{block}: its output is not finite at denoising step {step}")
            limits[block][step] = _rounded_up(float(np.partition(values, rank - 1)[rank - 1]))
        return cls(
            {block: tuple(row) for block, row in limits.items()},
            allowed_share(num_runs, rank),
            num_runs,
            identity(schedule),
            **options,
        )

    @property
    def cells(self) -> tuple[BlockStep, ...]:
        """Every watched block at its steps, block by block in order of evaluation."""
        return tuple(
            BlockStep(b, step) for b, row in self.limits.items() for step, limit in enumerate(row) if limit is not None
        )

    @property
    def changes_schedule(self) -> bool:
        """Whether the next runs follow another schedule after an alarm."""
        return self.response != "log"

    def fallback(self, schedule: Schedule) -> Schedule | None:
        """The schedule to follow after an alarm; None if `schedule` is kept."""
        if self.response == "dense":
            return Schedule(schedule.num_steps, dict.fromkeys(schedule.block_names, tuple(range(schedule.num_steps))))
        return self.response if isinstance(self.response, Schedule) else None

    def check(self, schedule: Schedule, estimator: str, policy: Fingerprint | None) -> None:
        """Refuse a schedule, estimator or policy that the limits were not calibrated for.

        Args:
            policy: The policy's fingerprint; None accepts any.

        Raises:
            MismatchError: One of them differs.
        """
        remedy = "Calibrate one for it: bac.guarding.calibrate(policy, schedule, batches)"
        if (found := identity(schedule)) != self.schedule_hash:
            raise MismatchError(f"guard: is for the schedule {self.schedule_hash}, this one is {found}. {remedy}")
        if estimator != self.estimator:
            raise MismatchError(f"guard: is for the estimator {self.estimator}, this one is {estimator}. {remedy}")
        if policy is not None and (differences := self.fingerprint.differences(policy)):
            lines = "\n  ".join(differences).replace("the schedule has", "the guard has")
            raise MismatchError(f"guard: was calibrated on another policy.\n  {lines}\n{remedy}")

    def save(self, path: str | Path) -> None:
        """Write the guard as JSON, atomically."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        document = {"format": _FORMAT, "version": _VERSION, **values, "fingerprint": self.fingerprint.to_dict()}
        document["limits"] = dict(self.limits)
        if isinstance(self.response, Schedule):
            parts = {"num_steps": self.response.num_steps, "update_steps": dict(self.response.update_steps)}
            known = asdict(self.response.fingerprint) if self.response.fingerprint else None
            document["response"] = {**parts, "fingerprint": known, "estimator": self.response.estimator}
        write_json(path, document)

    @classmethod
    def load(cls, path: str | Path) -> Guard:
        """Read what `save` wrote.

        Raises:
            ScheduleError: There is no such file, or it is not a complete guard of this version.
        """
        document = read_json(path, _MAKE)
        with one_sentence(path, _MAKE):
            if (document.get("format"), document.get("version")) != (_FORMAT, _VERSION):
                raise ScheduleError(f"is no guard of version {_VERSION}")
            return cls(**{f.name: part(document, f.name, _READ.get(f.name, as_it_is)) for f in fields(cls)})

    def __reduce__(self) -> tuple[Any, ...]:  # a MappingProxyType cannot be pickled
        return _remade, ({**{f.name: getattr(self, f.name) for f in fields(self)}, "limits": dict(self.limits)},)

    def __str__(self) -> str:
        num_steps = len(next(iter(self.limits.values())))
        denser = self.response if isinstance(self.response, Schedule) else None
        response = self.response if denser is None else f"a schedule of {denser.num_sweeps:.1f} sweeps"
        lines = [
            f"Guard: {len(self.cells)} watched cells of {len(self.limits)} blocks x {num_steps} steps, limits from "
            f"{self.num_runs} runs; {self.allowed:.1%} of looks may exceed them".replace("%", " %"),
            f"  one chunk in {self.probe_every} is probed at {self.num_cells} cells; {self.patience} probed chunks or "
            f"more to a false alarm; then: {response}",
        ]
        width = max(map(len, self.limits))
        rows = [f"  {block:{width}}  {''.join(map(_tenths, row))}" for block, row in self.limits.items()]
        rows[0] += "        # computed or not watched  0-9 limit of the relative error in tenths  + 1 or more"
        return "\n".join(lines + rows)


def identity(schedule: Schedule) -> str:
    """SHA-256 of a schedule's update steps, first 16 hex digits; its fingerprint and estimator do not enter."""
    steps = {name: list(steps) for name, steps in schedule.update_steps.items()}
    return hashlib.sha256(json.dumps([schedule.num_steps, list(steps.items())]).encode()).hexdigest()[:16]


def _remade(values: dict[str, Any]) -> Guard:
    return Guard(**values)


def _response(document: Any) -> Any:
    if not isinstance(document, Mapping):
        return document
    fingerprint = part(document, "fingerprint", lambda known: None if known is None else Fingerprint.from_dict(known))
    num_steps, steps = (part(document, name, as_it_is) for name in ("num_steps", "update_steps"))
    return Schedule(num_steps, steps, fingerprint, part(document, "estimator", as_it_is))


def _limits(document: Any) -> dict[str, tuple[float | None, ...]]:
    return {b: tuple(None if limit is None else as_number(limit) for limit in row) for b, row in document.items()}


def _range(document: Any) -> Any:
    return None if document is None else tuple(tuple(map(as_number, row)) for row in document)


# How parts of a document become attributes; the others are checked as they are.
_READ: dict[str, Callable[[Any], Any]] = {
    "limits": _limits,
    "allowed": as_number,
    "action_range": _range,
    "fingerprint": Fingerprint.from_dict,
    "response": _response,
}


def _tenths(limit: float | None) -> str:
    return "#" if limit is None else str(int(10 * limit)) if limit < 1 else "+"


def _rounded_up(value: float) -> float:
    """Round up to a few digits: the file stays short, and no calibrated error exceeds its own limit."""
    return float(f"{value * (1 + 10.0 ** (1 - _DIGITS)):.{_DIGITS}g}") if np.isfinite(value) else value
