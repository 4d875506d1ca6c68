"""One way to denoise: which solver, at which timesteps, what is computed there, and what stands in for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.errors import ScheduleError
from bac.fingerprint import Fingerprint
from bac.plugin import unwrap, wrap
from bac.schedule import Schedule
from bac.tuning.multistep import Multistep
from bac.tuning.solver import Solver, Undo, set_num_steps, takes_fewer_steps

FEWER = "fewer steps"


@dataclass(frozen=True)
class Candidate:
    """A way to denoise.

    Attributes:
        method: ``dense``, ``fewer steps``, ``together`` (all blocks update at the same steps) or the scheduler's name.
        num_steps: Denoising steps K.
        solver: None for the policy's own.
        timesteps: Of the solver, `[K]`, decreasing; empty if the policy's own is left.
        schedule: None if every block is computed at every step.
        fingerprint: The policy it was tuned for, as that was before; None puts it on any.
    """

    method: str
    num_steps: int
    solver: Solver | Multistep | None = None
    timesteps: tuple[int, ...] = ()
    schedule: Schedule | None = None
    fingerprint: Fingerprint | None = field(default=None, compare=False)

    @property
    def sweeps(self) -> float:
        """Block updates in units of one evaluation of the denoiser."""
        return float(self.num_steps) if self.schedule is None else self.schedule.num_sweeps

    @property
    def estimator(self) -> str:
        """What stands in for a block, or ``none``."""
        return "none" if self.schedule is None else self.schedule.estimator

    @property
    def name(self) -> str:
        """In tables: method, estimator, solver, steps."""
        solver = "its own solver" if self.solver is None else self.solver.name
        parts = [self.method, *([] if self.schedule is None else [self.estimator]), f"{solver}, {self.num_steps} steps"]
        return ", ".join(parts)

    def put_on(self, policy: Any, **options: Any) -> Undo:
        """Let a policy denoise so.

        Args:
            policy: Not wrapped.
            options: As for `bac.wrap`: `executor`, `exact`.

        Returns:
            A call that leaves the policy as it was.

        Raises:
            ScheduleError: It was tuned for another policy, or this one does not take the solver or number of steps.
        """
        undo = self._set(find_host(policy))

        def take_off() -> None:
            unwrap(policy)
            if undo is not None:
                undo()

        try:
            if self.schedule is not None or options.get("executor", "auto") != "interpret":
                wrap(policy, self.schedule, **options)
        except BaseException:
            take_off()
            raise
        return take_off

    def signed(self, policy: Any) -> Candidate:
        """The same, knowing what it was made for; so does its schedule."""
        mine = replace(self, fingerprint=find_host(policy).fingerprint())
        if self.schedule is None:
            return mine
        undo = replace(self, schedule=None).put_on(policy, executor="interpret")
        try:
            fingerprint: Fingerprint = find_host(policy).fingerprint()
        finally:
            undo()
        return replace(mine, schedule=replace(self.schedule, fingerprint=fingerprint))

    def _set(self, host: Host) -> Undo | None:
        """Solver and number of steps, where they are not as they should be."""
        if self.solver is not None:
            self._check(host)
            if not host.takes_solvers:
                raise ScheduleError(
                    f"{self.name}: {type(host.policy).__name__} has a solver of its own that cannot be replaced (flow "
                    "matching, say); cache it as it is: bac.wrap(policy, schedule)"
                )
            return self.solver.apply(host.sampler_owner, self.timesteps)
        unknown = host.num_steps is None and self.method != FEWER  # before a run; a schedule will be checked in it
        if unknown or host.num_steps == self.num_steps:
            return None
        self._check(host)
        if not takes_fewer_steps(host):
            raise ScheduleError(
                f"{self.name}: bac does not know where {type(host.policy).__name__} reads its number of denoising "
                f"steps; configure it for {self.num_steps} yourself, or cache it as it is: bac.wrap(policy, schedule)"
            )
        return set_num_steps(host, self.num_steps)

    def _check(self, host: Host) -> None:
        """Of the policy, its denoiser and its blocks, not of the solver that is about to be replaced."""
        made_for = self.fingerprint or Fingerprint()
        same = Fingerprint(made_for.policy, made_for.denoiser, made_for.block_names, dtype=made_for.dtype)
        if lines := same.differences(host.fingerprint()):
            raise ScheduleError(f"{self.name}: was tuned for another policy; " + "; ".join(lines) + "; tune this one")

    def __str__(self) -> str:
        """Name, timesteps, coefficients and schedule, as far as it has them."""
        timesteps = f"timesteps {', '.join(map(str, self.timesteps))}" if self.timesteps else ""
        weights = str(self.solver) if isinstance(self.solver, Multistep) else ""
        schedule = "" if self.schedule is None else str(self.schedule)
        return "\n".join(part for part in (self.name, timesteps, weights, schedule) if part)


def fewer_steps(solver: Solver | Multistep, grid: Sequence[int], places: Sequence[int]) -> Candidate:
    """A solver at some of the timesteps of a grid, everything computed."""
    timesteps = tuple(grid[place] for place in places)
    return Candidate(FEWER, len(timesteps), solver, timesteps)


def fewer_of_its_own(num_steps: int) -> Candidate:
    """The policy's own solver with fewer steps, spaced as it spaces them, everything computed."""
    return Candidate(FEWER, num_steps)


def together(
    solver: Solver,
    grid: Sequence[int],
    places: Sequence[int],
    names: Sequence[str],
    estimator: str,
    stride: int = 1,
) -> Candidate:
    """A solver at every `stride`-th timestep of a grid from the first place on; blocks update at the places alone."""
    steps = sorted({*places, *range(places[0], len(grid), stride)})
    schedule = Schedule(len(steps), dict.fromkeys(names, tuple(map(steps.index, places))), Fingerprint(), estimator)
    return Candidate("together", len(steps), solver, tuple(grid[step] for step in steps), schedule)


def as_it_is(num_steps: int, places: Sequence[int], names: Sequence[str], estimator: str) -> Candidate:
    """The policy's own solver and steps; all blocks update at the places alone."""
    return Candidate(
        "together",
        num_steps,
        schedule=Schedule(num_steps, dict.fromkeys(names, tuple(places)), Fingerprint(), estimator),
    )
