"""One way to denoise: which solver, at which timesteps, what is computed there, and what stands in for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bac.adapters import find_host
from bac.fingerprint import Fingerprint
from bac.plugin import unwrap, wrap
from bac.schedule import Schedule
from bac.tuning.multistep import Multistep
from bac.tuning.solver import Solver, Undo


@dataclass(frozen=True)
class Candidate:
    """A way to denoise.

    Attributes:
        method: ``dense``, ``fewer steps``, ``together`` (all blocks update at the same steps) or the scheduler's name.
        num_steps: Denoising steps K.
        solver: None to leave the policy's own as it is.
        timesteps: Of the solver, `[K]`, decreasing; empty if the policy's own is left.
        schedule: None if every block is computed at every step.
    """

    method: str
    num_steps: int
    solver: Solver | Multistep | None = None
    timesteps: tuple[int, ...] = ()
    schedule: Schedule | None = None

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
        """
        undo = None
        if self.solver is not None:
            undo = self.solver.apply(find_host(policy).sampler_owner, self.timesteps)

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
        """The same with a schedule that knows what it was made for."""
        if self.schedule is None:
            return self
        undo = replace(self, schedule=None).put_on(policy, executor="interpret")
        try:
            fingerprint: Fingerprint = find_host(policy).fingerprint()
        finally:
            undo()
        return replace(self, schedule=replace(self.schedule, fingerprint=fingerprint))


def fewer_steps(solver: Solver | Multistep, grid: Sequence[int], places: Sequence[int]) -> Candidate:
    """A solver at some of the timesteps of a grid, everything computed."""
    timesteps = tuple(grid[place] for place in places)
    return Candidate("fewer steps", len(timesteps), solver, timesteps)


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
