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

from bac.caching.estimators import Estimator
from bac.caching.estimators.fitted import Fitted
from bac.caching.interceptors.online import OnlineRule
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError
from bac.files import FORMAT, VERSION, read_denoising, write_json
from bac.fingerprint import Fingerprint
from bac.published.naming import estimator_named, fitted_class
from bac.solvers import Multistep, Solver, solver_named

AS_LOADED = "as loaded"


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
        precision: Precision of the weights; ``"as loaded"`` is the only value so far.
        fingerprint: Identity of the untouched policy that it was made for. `bac.wrap` compares it; None fits any.

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
        if self.precision != AS_LOADED:
            raise ScheduleError(f'precision: must be "{AS_LOADED}", got {self.precision!r}')

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
        if not isinstance(self.num_steps, int) or isinstance(self.num_steps, bool) or self.num_steps < 1:
            raise ScheduleError(f"num_steps: must be a whole number of at least 1, got {self.num_steps!r}")
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
        """One line for tables: estimator, solver, steps."""
        solver = "own solver" if self.solver is None else self.solver.name
        steps = "own steps" if self.num_evaluations is None else f"{self.num_evaluations} steps"
        cache = [] if self.schedule is None else [self.estimator_name]
        return ", ".join([*cache, solver, steps])

    @property
    def estimator_name(self) -> str:
        """Name of the estimator; ``none`` if nothing is reused."""
        if self.estimator is not None:
            return self.estimator.name
        if isinstance(self.schedule, Schedule):
            return self.schedule.estimator
        return "none" if self.schedule is None else "hold"

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
            ScheduleError: It holds an online rule or an estimator with options, which no file can hold.
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
            "solver": _solver_document(self.solver),
            "timesteps": list(self.timesteps),
            "num_steps": self.num_steps,
            "schedule": _schedule_document(self.schedule),
            "estimator": None if self.schedule is None else _estimator_document(self),
            "precision": self.precision,
            "fingerprint": None if self.fingerprint is None else self.fingerprint.to_dict(),
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
        try:
            stored, solver = document["fingerprint"], document["solver"]
            fingerprint = None if stored is None else Fingerprint.from_dict(stored)
            name, estimator = _estimator(document["estimator"])
            return cls(
                solver=None if solver is None else solver_named(solver["name"], solver.get("coefficients")),
                timesteps=tuple(document["timesteps"]),
                num_steps=document["num_steps"],
                schedule=_schedule(document["schedule"], fingerprint, name),
                estimator=estimator,
                precision=document.get("precision", AS_LOADED),
                fingerprint=fingerprint,
            )
        except ScheduleError as error:
            raise ScheduleError(f"{origin}: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise ScheduleError(f"{origin}: a part is missing or of another type ({error!r}); save it again") from error

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
    shares = tuple(float(value) for value in numbers)
    are_whole = all(share.is_integer() for share in shares)
    allowed = all(share >= 0 if are_whole else 0 < share <= 1 for share in shares)
    if len(shares) < len(values) or not allowed or list(shares) != sorted(set(shares), reverse=True):
        raise ScheduleError(
            f"timesteps: must be whole numbers from 0 on, each below the one before, got {values}; those of a "
            "flow-matching policy are shares of noise in (0, 1], such as (0.8, 0.2, 0.05)"
        )
    return tuple(map(int, shares)) if are_whole else shares


def _solver_document(solver: Solver | None) -> dict[str, Any] | None:
    if solver is None:
        return None
    fitted = {"coefficients": [list(row) for row in solver.coefficients]} if isinstance(solver, Multistep) else {}
    return {"name": solver.name, **fitted}


def _schedule_document(schedule: Schedule | None) -> dict[str, Any] | None:
    if schedule is None:
        return None
    return {"num_steps": schedule.num_steps, "update_steps": {k: list(v) for k, v in schedule.update_steps.items()}}


def _schedule(document: Any, fingerprint: Fingerprint | None, estimator: str) -> Schedule | None:
    if document is None:
        return None
    steps = {name: tuple(values) for name, values in document["update_steps"].items()}
    return Schedule(document["num_steps"], steps, fingerprint, estimator)


def _of_name(name: str, timesteps: tuple[float, ...]) -> Estimator | None:
    """The estimator that a name describes in full; None if it needs fitted parameters or is unknown."""
    try:
        return estimator_named(name, timesteps)
    except ScheduleError:
        return None


def _estimator_document(denoising: Denoising) -> dict[str, Any]:
    name, estimator = denoising.estimator_name, denoising.estimator
    if estimator is None:
        return {"name": name}
    if isinstance(estimator, Fitted):
        return {"name": name, "parameters": estimator.to_document()}
    raise ScheduleError(f"estimator: no file holds the options of {estimator}; give it again when the file is loaded")


def _estimator(document: Any) -> tuple[str, Estimator | None]:
    """Name and, if its parameters are stored, the estimator. `estimator_on` makes any other from its name."""
    if document is None:
        return "hold", None
    name, parameters = document["name"], document.get("parameters")
    cls = fitted_class(name)
    return name, None if cls is None or parameters is None else cls.from_document(parameters)
