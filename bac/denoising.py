"""One way to denoise, as one frozen value: what `bac.wrap` takes, `bac.tune` finds and ``bac.json`` holds.

A denoising run is made cheaper by fewer steps (solver, timesteps, number of steps) and by reuse (schedule, estimator).
Everything that is None or empty is left as the policy has it, so ``Denoising()`` is the policy itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bac import presets
from bac.caching.estimators import Estimator
from bac.caching.estimators.fitted import Fitted
from bac.caching.interceptors.online import OnlineRule
from bac.caching.schedule import Schedule, check_count
from bac.document import (
    estimator_document,
    read_estimator,
    read_fingerprint,
    read_measured,
    read_schedule,
    read_solver,
    schedule_document,
    solver_document,
)
from bac.errors import ScheduleError
from bac.files import FORMAT, VERSION, as_it_is, one_sentence, part, read_denoising, write_json
from bac.fingerprint import Fingerprint
from bac.measured import Measured
from bac.precision import AS_LOADED, check_precision
from bac.published.naming import estimator_named
from bac.solvers import Multistep, Solver, solver_named


@dataclass(frozen=True)
class Denoising:
    """A way to denoise. Frozen, checked when made, and drawn when printed.

    Attributes:
        solver: A value of `bac.solvers`, or its name: ``"DPM-Solver++"``, or ``"Euler"`` for flow matching. None keeps
            the policy's own.
        timesteps: The solver's noise levels in order of evaluation, `[K]`, decreasing; empty if `solver` is None.
            Whole numbers for a diffusion policy, those of its training; shares of noise in (0, 1] for flow matching,
            such as ``(0.8, 0.2, 0.05)``, whichever way the policy itself counts.
        num_steps: Denoising steps K. None leaves the policy's number.
        schedule: When blocks update: a `bac.Schedule`, or a rule of `bac.published` that decides during the run. None
            computes every block at every step.
        estimator: Gives a reused block's value. None takes the one that the schedule names.
        precision: Precision of products where weights are float32: ``"as loaded"``, ``"tf32"`` or ``"bf16"``. The last
            two change the actions; see `bac.precision`.
        fingerprint: Identity of the untouched policy that it was made for. `bac.wrap` compares it; None fits any.
        measured: What `bac.tune` measured of it on that policy; None if nothing was.

    Raises:
        ScheduleError: A value is unknown, or does not fit another.
    """

    solver: Solver | None = None
    timesteps: tuple[float, ...] = ()
    num_steps: int | None = None
    schedule: Schedule | OnlineRule | None = None
    estimator: Estimator | None = None
    precision: str = AS_LOADED
    # Not compared: two ways to denoise are equal, whichever policies they were made for.
    fingerprint: Fingerprint | None = field(default=None, compare=False)
    measured: Measured | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        # object.__setattr__, because the dataclass is frozen.
        if isinstance(self.solver, str):
            object.__setattr__(self, "solver", solver_named(self.solver))
        self._check_types()
        object.__setattr__(self, "timesteps", _checked_timesteps(self.timesteps))
        self._check_solver()
        if self.timesteps and self.num_steps is None:
            object.__setattr__(self, "num_steps", len(self.timesteps))
        self._check_num_steps()
        self._agree_with_schedule()
        check_precision(self.precision)

    def _check_types(self) -> None:
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise ScheduleError(f"solver: must be a solver of bac.solvers, or its name, got {self.solver!r}")
        if self.schedule is not None and not isinstance(self.schedule, (Schedule, OnlineRule)):
            raise ScheduleError(
                f"schedule: must be a bac.Schedule or an online rule, got {self.schedule!r}; for a file: bac.load(path)"
            )
        if self.estimator is not None and not isinstance(self.estimator, Estimator):
            raise ScheduleError(f"estimator: must be one of bac.caching.estimators, got {self.estimator!r}")

    def _check_solver(self) -> None:
        if (self.solver is None) != (not self.timesteps):
            raise ScheduleError(
                "timesteps: belong to a solver, and a solver needs them: bac.Denoising(solver='DPM-Solver++', "
                f"timesteps=(91, 47, 12, 2)); got solver={self.solver and self.solver.name}, timesteps={self.timesteps}"
            )
        if self.solver is not None:
            self.solver.check(self.timesteps)

    def _check_num_steps(self) -> None:
        if self.num_steps is None:
            return
        check_count("num_steps", self.num_steps)
        for what, count in (("timesteps are", len(self.timesteps)), ("schedule is", self._scheduled_steps)):
            if count and count != self.num_steps:
                raise ScheduleError(f"num_steps: {what} for {count} steps, got {self.num_steps}")

    def _agree_with_schedule(self) -> None:
        """Give value and schedule one estimator name and one fingerprint.

        An estimator that its name describes in full is kept as that name alone, so equal values compare equal.
        """
        if self.estimator is not None and self.schedule is None:
            raise ScheduleError(f"estimator: {self.estimator.name} needs a schedule, which says where to reuse")
        if not isinstance(self.schedule, Schedule):
            return
        name = self.schedule.estimator if self.estimator is None else self.estimator.name
        fingerprint = self.fingerprint or self.schedule.fingerprint  # a scheduler copies it from the calibration
        schedule = replace(self.schedule, estimator=name, fingerprint=fingerprint)
        if self.estimator is not None and self.estimator == _of_name(name, self.timesteps):
            object.__setattr__(self, "estimator", None)
        object.__setattr__(self, "schedule", schedule)
        object.__setattr__(self, "fingerprint", fingerprint)

    @classmethod
    def of(cls, what: Denoising | Schedule | OnlineRule | None) -> Denoising:
        """Turn the argument of `bac.wrap` into a way to denoise.

        Raises:
            ScheduleError: `what` has another type.
        """
        if isinstance(what, Denoising):
            return what
        if what is None or isinstance(what, (Schedule, OnlineRule)):
            return cls(schedule=what)
        raise ScheduleError(
            f"what: must be a bac.Denoising or a bac.Schedule, got {type(what).__name__}; for a file: bac.load(path)"
        )

    @classmethod
    def preset(cls, name: str, num_steps: int) -> Denoising:
        """A way to denoise that was fitted on other policies, for where there are no observations to tune with.

        Args:
            name: ``"flow"``, a fitted multistep for policies that flow matching trained.
            num_steps: Denoising steps K.

        Raises:
            ScheduleError: There is no such preset.
        """
        return load(presets.path_of(f"{name}-{num_steps}"))

    @property
    def num_evaluations(self) -> int | None:
        """Evaluations of the denoiser in a run; None if the policy's own number decides."""
        return self.num_steps or self._scheduled_steps

    @property
    def sweeps(self) -> float | None:
        """Block updates in units of one evaluation of the denoiser; None if the policy or a rule decides."""
        if isinstance(self.schedule, Schedule):
            return self.schedule.num_sweeps
        return self.num_steps if self.schedule is None else None

    @property
    def name(self) -> str:
        """One line for tables: estimator, solver, steps, and the precision if it is not the policy's own."""
        solver = "own solver" if self.solver is None else self.solver.name
        steps = "own steps" if self.num_evaluations is None else f"{self.num_evaluations} steps"
        cache = [] if self.schedule is None else [self.estimator_name]
        coarser = [] if self.precision == AS_LOADED else [self.precision]
        return ", ".join([*cache, solver, steps, *coarser])

    @property
    def estimator_name(self) -> str:
        """Name of the estimator; ``none`` if nothing is reused."""
        if self.estimator is not None:
            return self.estimator.name
        if isinstance(self.schedule, Schedule):
            return self.schedule.estimator
        return "none" if self.schedule is None else "hold"

    @property
    def is_fitted(self) -> bool:
        """Whether it holds numbers that were fitted to one policy's weights."""
        return isinstance(self.solver, Multistep) or isinstance(self.estimator, Fitted)

    @property
    def made_for(self) -> Fingerprint:
        """Fingerprint of the policy it was made for, as far as known."""
        return self.fingerprint or Fingerprint(num_steps=self._scheduled_steps)

    def estimator_on(self, timesteps: tuple[float, ...]) -> Estimator:
        """The estimator for a policy.

        Args:
            timesteps: The policy's own noise levels, `[K]`, for forecasts along them.

        Raises:
            ScheduleError: The schedule names an unknown estimator, or one that needs fitted parameters.
        """
        if self.estimator is not None:
            return self.estimator
        return estimator_named(self.estimator_name if self.schedule else "hold", self.timesteps or timesteps)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, atomically. LeRobot's commands follow a ``bac.json`` beside a policy's weights.

        Raises:
            ScheduleError: It holds an online rule, a published solver or an estimator with options, which no file can
                hold.
        """
        write_json(path, self.to_document())

    def to_document(self) -> dict[str, Any]:
        """The document that `save` writes, in plain JSON types.

        Raises:
            ScheduleError: As from `save`.
        """
        if isinstance(self.schedule, OnlineRule):
            raise ScheduleError(f"schedule: {type(self.schedule).__name__} decides during the run; no file holds it")
        return {
            "format": FORMAT,
            "version": VERSION,
            "solver": solver_document(self.solver),
            "timesteps": list(self.timesteps),
            "num_steps": self.num_steps,
            "schedule": schedule_document(self.schedule),
            "estimator": None if self.schedule is None else estimator_document(self.estimator_name, self.estimator),
            "precision": self.precision,
            "fingerprint": None if self.fingerprint is None else self.fingerprint.to_dict(),
            "measured": None if self.measured is None else self.measured.to_dict(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], origin: str) -> Denoising:
        """Inverse of `to_document`.

        Args:
            document: As `to_document` made it.
            origin: The document's source, for error messages.

        Raises:
            ScheduleError: A part is missing, of another type, or breaks a rule.
        """
        with one_sentence(origin):
            fingerprint = part(document, "fingerprint", read_fingerprint)
            name, estimator = part(document, "estimator", read_estimator)
            timesteps = part(document, "timesteps", tuple)
            num_steps = part(document, "num_steps", as_it_is)
            if timesteps and num_steps is None:  # no file was written so
                raise ScheduleError(f"num_steps: must be the number of timesteps, {len(timesteps)}, got null")
            return cls(
                solver=part(document, "solver", read_solver),
                timesteps=timesteps,
                num_steps=num_steps,
                schedule=part(document, "schedule", lambda given: read_schedule(given, fingerprint, name)),
                estimator=estimator,
                precision=document.get("precision", AS_LOADED),
                fingerprint=fingerprint,
                measured=read_measured(document.get("measured")),  # older files lack it
            )

    @property
    def _scheduled_steps(self) -> int | None:
        return None if self.schedule is None else self.schedule.num_steps

    def __str__(self) -> str:
        lines = [f"Denoising: {self.name}"]
        if self.timesteps:
            lines.append(f"timesteps {', '.join(map(str, self.timesteps))}")
        if isinstance(self.solver, Multistep):
            lines.append(str(self.solver))
        if self.schedule is not None:
            lines.append(str(self.schedule))
        if self.measured is not None:
            lines.append(f"measured: {self.measured}")
        return "\n".join(lines)


def load(path: str | Path) -> Denoising:
    """Read a ``bac.json`` of any version: what `bac tune`, `bac calibrate` or `Denoising.save` wrote.

    Raises:
        ScheduleError: There is no such file, or it holds no complete way to denoise.
    """
    return Denoising.from_document(read_denoising(path), str(path))


def _checked_timesteps(given: Any) -> tuple[float, ...]:
    """Timesteps as whole numbers if all of them are (NumPy and JSON may give 91.0), otherwise as shares of noise."""
    values = tuple(given)
    numbers = [value for value in values if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)]
    shares = tuple(int(value) if _is_whole(value) else float(value) for value in numbers)
    are_whole = all(isinstance(share, int) for share in shares)
    allowed = all(share >= 0 if are_whole else 0 < share <= 1 for share in shares)
    if len(shares) < len(values) or not allowed or list(shares) != sorted(set(shares), reverse=True):
        raise ScheduleError(
            f"timesteps: must fall from step to step, got {values!s:.80}. On a diffusion policy they are whole numbers "
            "from 0 on; on a flow-matching one shares of noise in (0, 1], such as (0.8, 0.2, 0.05), 0 left out"
        )
    return shares if are_whole else tuple(map(float, shares))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or float(value).is_integer()


def _of_name(name: str, timesteps: tuple[float, ...]) -> Estimator | None:
    """The estimator that a name describes in full; None if it needs fitted parameters or is unknown."""
    try:
        return estimator_named(name, timesteps)
    except ScheduleError:
        return None
