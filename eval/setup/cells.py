"""A cell of the comparison: which solver, how many denoising steps, which cache. What the table has rows of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import bac
from bac.caching.schedulers.unified import unified_schedule
from bac.caching.schedulers.uniform import uniform_schedule
from bac.tuning import Multistep

SOLVERS = ("DDPM", "DDIM", "DPM-Solver++")  # in every comparison
FITTED = "fitted multistep"
OTHER_SOLVERS = ("DPM-Solver++ 1", "SDE-DPM-Solver++", "UniPC", FITTED)
CACHES = ("dense", "uniform", "unified", "acs", "bac", "placed")
SPACINGS = ("leading", "trailing", "linspace")
FORCED_LAST = 3


@dataclass(frozen=True)
class Cell:
    """One way to run a policy. Frozen, and checked when made.

    Attributes:
        name: Title in tables and figures, unique within a comparison.
        solver: Noise scheduler, one of `SOLVERS` or `OTHER_SOLVERS`.
        num_steps: Denoising steps K.
        cache: ``dense`` evaluates every block at every step; ``uniform`` and ``unified`` update all blocks together
            at evenly spaced or ACS-chosen steps; ``acs`` chooses steps per block; ``bac`` adds bubbling (BUA);
            ``placed`` updates all blocks at `update_steps`.
        num_updates: Updates per block before bubbling (the paper's S), None for ``dense``.
        num_bubbled: Most fragile blocks that bubble (the paper's n), only with ``bac``.
        force_last: Final steps at which every block updates.
        timestep_spacing: One of `SPACINGS`, or None for the solver's own.
        timesteps: The solver's timesteps, `[K]`, decreasing, instead of a spacing.
        update_steps: Of all blocks, with ``placed`` only.
        estimator: What stands in for a block if not ``hold``, with ``placed`` or a schedule; see `bac.caching.estimators`.
        weights: Of the fitted multistep solver, `[K, 5]`, with that solver only; see `bac.tuning.Multistep`.

    Raises:
        ValueError: A value is unknown or does not fit the others.
    """

    name: str
    solver: str = "DDPM"
    num_steps: int = 100
    cache: str = "dense"
    num_updates: int | None = None
    num_bubbled: int = 0
    force_last: int = 0
    timestep_spacing: str | None = None
    timesteps: tuple[int, ...] | None = None
    update_steps: tuple[int, ...] | None = None
    estimator: str | None = None
    weights: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        _check_member("solver", self.solver, (*SOLVERS, *OTHER_SOLVERS))
        _check_member("cache", self.cache, CACHES)
        if self.timestep_spacing is not None:
            _check_member("timestep_spacing", self.timestep_spacing, SPACINGS)
        for places in ("timesteps", "update_steps"):  # lists, if read from JSON
            if getattr(self, places) is not None:
                object.__setattr__(self, places, tuple(getattr(self, places)))
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(map(tuple, self.weights)))
        if (self.solver == FITTED) != (self.weights is not None and self.timesteps is not None):
            raise ValueError(f"{self.name}: solver={self.solver}; {FITTED} needs timesteps and weights, no other does")
        if (self.cache == "placed") != (self.update_steps is not None):
            raise ValueError(
                f"{self.name}: cache={self.cache} with update_steps={self.update_steps}; placed needs them"
            )
        if (self.cache in ("dense", "placed")) != (self.num_updates is None):
            raise ValueError(f"{self.name}: cache={self.cache} with num_updates={self.num_updates}; dense takes none")
        if self.num_bubbled and self.cache != "bac":
            raise ValueError(f"{self.name}: num_bubbled={self.num_bubbled} needs cache=bac, got {self.cache}")

    @property
    def sampler(self) -> "Cell":
        """The dense cell with the same solver: what a schedule for this cell is calibrated on."""
        return Cell(
            self.solver_name,
            self.solver,
            self.num_steps,
            timestep_spacing=self.timestep_spacing,
            timesteps=self.timesteps,
            weights=self.weights,
        )

    @property
    def solver_name(self) -> str:
        """Solver, steps and spacing in words, e.g. ``DDIM-14 trailing``."""
        return f"{self.solver}-{self.num_steps}" + (f" {self.timestep_spacing}" if self.timestep_spacing else "")

    def describe(self) -> dict[str, Any]:
        """Everything that decides the result, as plain JSON types; the title is not among it."""
        later = (
            "timesteps",
            "update_steps",
            "estimator",
            "weights",
        )  # absent where unset: results stay those of before
        return {
            key: _plain(value)
            for key, value in asdict(self).items()
            if key != "name" and (value is not None or key not in later)
        }


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def build_schedule(cell: Cell, calibration: bac.Calibration) -> bac.Schedule | None:
    """The cell's schedule from the calibration of its solver; None if the cell is dense."""
    match cell.cache, cell.num_updates:
        case "placed", _:
            steps = dict.fromkeys(calibration.block_names, cell.update_steps)
            return bac.Schedule(cell.num_steps, steps, calibration.fingerprint, cell.estimator or "hold")
        case _, None:
            return None
        case "uniform", updates:
            return uniform_schedule(calibration, updates, force_last=cell.force_last)
        case "unified", updates:
            return unified_schedule(calibration, updates, force_last=cell.force_last)
        case _, updates:
            return bac.adaptive_schedule(calibration, updates, num_bubbled=cell.num_bubbled, force_last=cell.force_last)


@contextmanager
def running(policy: Any, cell: Cell, schedule: bac.Schedule | None) -> Iterator[Any]:
    """Set the policy to the cell's solver and cache for the duration of a `with`; no trace of the cache is left.

    The blocks are intercepted, not replayed: a plan would be recorded for every batch size a pool of episodes passes
    through, and replays the same bits.
    """
    use_solver_of(policy, cell)
    if schedule is None:
        yield policy
        return
    bac.wrap(policy, schedule, executor="interpret")
    try:
        yield policy
    finally:
        bac.unwrap(policy)


def use_solver_of(policy: Any, cell: Cell) -> None:
    """Set the policy to the cell's solver and timesteps."""
    if cell.weights is not None:
        policy.diffusion.use_solver("DDIM", cell.num_steps, timesteps=cell.timesteps)
        Multistep(cell.weights).apply(policy.diffusion, cell.timesteps)
        return
    placed = {} if cell.timesteps is None else {"timesteps": cell.timesteps}
    policy.diffusion.use_solver(cell.solver, cell.num_steps, timestep_spacing=cell.timestep_spacing, **placed)


def dense(num_steps: int = 100, solver: str = "DDPM", spacing: str | None = None) -> Cell:
    """No cache: the solver with `num_steps` full evaluations."""
    cell = Cell("", solver, num_steps, timestep_spacing=spacing)
    return Cell(cell.solver_name, solver, num_steps, timestep_spacing=spacing)


def adaptive(updates: int, bubbled: int, *, solver: str = "DDPM", force_last: int = 0, num_steps: int = 100) -> Cell:
    """BAC (ACS then BUA), or ACS alone if nothing bubbles."""
    title = f"BAC S={updates} n={bubbled}" if bubbled else f"ACS S={updates}, no BUA"
    title += f", last {force_last} forced" if force_last else ""
    title += f" on {solver}-{num_steps}" if solver != "DDPM" else ""
    cache = "bac" if bubbled else "acs"
    return Cell(title, solver, num_steps, cache, updates, bubbled, force_last)


def together(cache: str, updates: int, *, solver: str = "DDPM", num_steps: int = 100) -> Cell:
    """All blocks updated at the same steps: ``uniform`` or ``unified``."""
    suffix = f" on {solver}-{num_steps}" if solver != "DDPM" else ""
    return Cell(f"{cache} {updates}{suffix}", solver, num_steps, cache, updates)


def core_cells(num_updates: int = 10, num_bubbled: int = 5) -> tuple[Cell, ...]:
    """Cells that need no measurement first; the dense reference leads, the published method follows."""
    return (
        dense(),
        adaptive(num_updates, num_bubbled),
        adaptive(num_updates, 0),
        adaptive(num_updates, num_bubbled, force_last=FORCED_LAST),
        dense(solver="DDIM"),
        adaptive(num_updates, num_bubbled, solver="DDIM"),
    )


def equal_cost_cells(schedule: bac.Schedule) -> tuple[Cell, ...]:
    """Uniform and unified with as many updates as BAC really makes: its sweeps, rounded, not its S."""
    updates = round(schedule.num_sweeps)
    return together("uniform", updates), together("unified", updates)


def few_step_cells(steps: tuple[int, ...], spacing: dict[str, str | None]) -> tuple[Cell, ...]:
    """The rivals: each deterministic solver at several numbers of dense steps, for a curve."""
    return tuple(dense(k, solver, spacing.get(solver)) for solver in SOLVERS[1:] for k in steps)


def sweep_cells(updates: tuple[int, ...], bubbled: tuple[int, ...]) -> tuple[Cell, ...]:
    """BAC on DDPM over a grid of S and n: at which does it keep the success of dense?"""
    return tuple(adaptive(s, n) for s in updates for n in bubbled)


def _check_member(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what}: must be one of {', '.join(known)}, got {value!r}")
