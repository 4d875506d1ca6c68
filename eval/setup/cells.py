"""A cell is one row of a comparison: the policy's own configuration, and the Denoising that `bac` puts on it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import bac
import policies
from bac.caching.calibration import Calibration
from bac.caching.schedulers.unified import unified_schedule
from bac.caching.schedulers.uniform import uniform_schedule
from eval.setup.noise import scaled_noise

SOLVERS = ("DDPM", "DDIM", "DPM-Solver++")  # the solvers of every comparison
FLOW = "FlowMatchEuler"  # of policies that are trained by flow matching, which take no other
OTHER_SOLVERS = ("DPM-Solver++ 1", "SDE-DPM-Solver++", "UniPC", FLOW)
CACHES = ("dense", "uniform", "unified", "acs", "bac")
SPACINGS = ("leading", "trailing", "linspace")
FORCED_LAST = 3


@dataclass(frozen=True)
class Cell:
    """One way to run a policy. A cell is frozen, and checks itself when made.

    The solver, the number of steps and the timestep spacing configure the policy itself. On top, `bac` puts a
    Denoising: either `denoising`, or the schedule that the recipe (`cache` and its numbers) makes from a calibration.

    Attributes:
        name: Title in tables and figures, unique within a comparison.
        solver: Solver that the policy is configured with, one of `SOLVERS` or `OTHER_SOLVERS`.
        num_steps: Denoising steps K that the policy is configured with.
        cache: ``dense`` evaluates every block at every step; ``uniform`` and ``unified`` update all blocks together
            at evenly spaced or ACS-chosen steps; ``acs`` chooses steps per block; ``bac`` adds bubbling (BUA).
        num_updates: Updates per block before bubbling (the paper's S), None for ``dense``.
        num_bubbled: How many of the most fragile blocks bubble (the paper's n); only with ``bac``.
        force_last: Number of final steps at which every block updates.
        timestep_spacing: One of `SPACINGS`, or None for the solver's own.
        denoising: The Denoising that is put on the policy; only with ``cache="dense"``.
        noise_scale: The noise that a run begins with is multiplied by this; other than 1 only for flows.
        family: Group of the method, for tables that group methods.

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
    denoising: bac.Denoising | None = None
    noise_scale: float = 1.0
    family: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_member("solver", self.solver, (*SOLVERS, *OTHER_SOLVERS))
        _check_member("cache", self.cache, CACHES)
        if self.timestep_spacing is not None:
            _check_member("timestep_spacing", self.timestep_spacing, SPACINGS)
        if (self.cache == "dense") != (self.num_updates is None):
            raise ValueError(f"{self.name}: cache={self.cache} with num_updates={self.num_updates}; dense takes none")
        if self.num_bubbled and self.cache != "bac":
            raise ValueError(f"{self.name}: num_bubbled={self.num_bubbled} needs cache=bac, got {self.cache}")
        if self.denoising is not None and self.cache != "dense":
            raise ValueError(f"{self.name}: cache={self.cache} beside a denoising; a cell has one of the two")

    @property
    def is_dense(self) -> bool:
        """Whether nothing is put on the policy."""
        return self.cache == "dense" and self.denoising is None

    @property
    def steps(self) -> int:
        """Denoising steps K of a denoising run: those of `denoising` if it sets them, else `num_steps`."""
        return (self.denoising and self.denoising.num_evaluations) or self.num_steps

    @property
    def sampler(self) -> "Cell":
        """The dense cell with the same configuration. A schedule for this cell is calibrated on it."""
        return Cell(self.solver_name, self.solver, self.num_steps, timestep_spacing=self.timestep_spacing)

    @property
    def solver_name(self) -> str:
        """Solver, steps and spacing in words, e.g. ``DDIM-14 trailing``."""
        return f"{self.solver}-{self.num_steps}" + (f" {self.timestep_spacing}" if self.timestep_spacing else "")

    def describe(self) -> dict[str, Any]:
        """Everything that decides the result, as plain JSON types: all but title, family and fingerprint."""
        values = asdict(replace(self, denoising=None))
        left_out = {"name", "family", "denoising"} | ({"noise_scale"} if self.noise_scale == 1.0 else set())
        values = {key: value for key, value in values.items() if key not in left_out}
        if self.denoising is not None:
            document = self.denoising.to_document()
            values["denoising"] = {key: value for key, value in document.items() if key != "fingerprint"}
        return values

    def to_document(self) -> dict[str, Any]:
        """The cell as plain JSON types."""
        document = None if self.denoising is None else self.denoising.to_document()
        return {"name": self.name, "family": self.family, **self.describe(), "denoising": document}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Cell":
        """Inverse of `to_document`."""
        stored = document["denoising"]
        denoising = None if stored is None else bac.Denoising.from_document(stored, document["name"])
        return cls(**{**document, "denoising": denoising})


def build_denoising(cell: Cell, calibration: Calibration) -> bac.Denoising:
    """Make the Denoising of a cell from its recipe and the calibration of its solver."""
    updates, last = cell.num_updates, cell.force_last
    match cell.cache, updates:
        case _, None:
            return cell.denoising or bac.Denoising()
        case "uniform", _:
            schedule = uniform_schedule(calibration, updates, force_last=last)
        case "unified", _:
            schedule = unified_schedule(calibration, updates, force_last=last)
        case _:
            schedule = bac.adaptive_schedule(calibration, updates, num_bubbled=cell.num_bubbled, force_last=last)
    return bac.Denoising(schedule=schedule)


@contextmanager
def running(policy: Any, cell: Cell, denoising: bac.Denoising | None = None) -> Iterator[Any]:
    """Configure a policy as a cell says and wrap it; unwrap it when the block ends.

    The blocks are intercepted, not replayed. A pool of episodes passes through many batch sizes, and each would need a
    plan of its own; the actions are the same bits either way.

    Args:
        policy: Unwrapped policy.
        cell: The policy's configuration.
        denoising: The Denoising to put on; None for the cell's own, if it has one.
    """
    configure(policy, cell)
    chosen = denoising or cell.denoising or bac.Denoising()
    with scaled_noise(policy, cell.noise_scale):
        if chosen == bac.Denoising():
            yield policy
            return
        bac.wrap(policy, chosen, replay=False)
        try:
            yield policy
        finally:
            bac.unwrap(policy)


def configure(policy: Any, cell: Cell) -> None:
    """Set the policy's own solver, number of steps and spacing."""
    policies.set_steps(policy, cell.num_steps, cell.solver, timestep_spacing=cell.timestep_spacing)


def holding(denoising: bac.Denoising, name: str | None = None, *, on: Cell | None = None) -> Cell:
    """The cell that holds a Denoising.

    Args:
        denoising: The Denoising that is put on the policy.
        name: Title; by default solver and steps, such as ``fitted multistep-4``.
        on: Cell that configures the policy; by default the one that the Denoising was made on, as its fingerprint says.
    """
    below = on or made_on(denoising)
    solver = below.solver if denoising.solver is None else denoising.solver.name
    title = name or f"{solver}-{denoising.num_evaluations or below.num_steps}"
    return replace(below.sampler, name=title, denoising=denoising, family="tuned")


def made_on(denoising: bac.Denoising) -> Cell:
    """The dense cell that a Denoising was made on: DDPM-100, DDIM-100 or a flow's. DDIM-100 without a fingerprint."""
    made = denoising.fingerprint
    if made is not None and made.solver == "FlowMatchEulerDiscreteScheduler":
        return dense(made.num_steps or 10, FLOW)
    return dense(solver="DDPM" if made is not None and made.solver == "DDPMScheduler" else "DDIM")


def itself(cell: Cell) -> Cell:
    """The policy itself: what a cell is compared with in closed loop. DDPM-100, or a flow's own steps."""
    return cell.sampler if cell.solver == FLOW else dense()


def stored(path: Path, *, on: Cell | None = None) -> Cell:
    """The cell that holds the Denoising of a ``bac.json``; see `holding`."""
    return holding(bac.load(path), on=on)


def dense(num_steps: int = 100, solver: str = "DDPM", spacing: str | None = None) -> Cell:
    """The dense cell: the solver with `num_steps` full evaluations and no cache."""
    cell = Cell("", solver, num_steps, timestep_spacing=spacing)
    return Cell(cell.solver_name, solver, num_steps, timestep_spacing=spacing)


def adaptive(updates: int, bubbled: int, *, solver: str = "DDPM", force_last: int = 0, num_steps: int = 100) -> Cell:
    """The cell of BAC (ACS then BUA), or of ACS alone if `bubbled` is 0."""
    title = f"BAC S={updates} n={bubbled}" if bubbled else f"ACS S={updates}, no BUA"
    title += f", last {force_last} forced" if force_last else ""
    title += f" on {solver}-{num_steps}" if solver != "DDPM" else ""
    cache = "bac" if bubbled else "acs"
    return Cell(title, solver, num_steps, cache, updates, bubbled, force_last)


def together(cache: str, updates: int, *, solver: str = "DDPM", num_steps: int = 100) -> Cell:
    """The cell that updates all blocks at the same steps: ``uniform`` or ``unified``."""
    suffix = f" on {solver}-{num_steps}" if solver != "DDPM" else ""
    return Cell(f"{cache} {updates}{suffix}", solver, num_steps, cache, updates)


def core_cells(num_updates: int = 10, num_bubbled: int = 5) -> tuple[Cell, ...]:
    """Cells that need no latency first. The dense reference comes first, BAC as published second."""
    return (
        dense(),
        adaptive(num_updates, num_bubbled),
        adaptive(num_updates, 0),
        adaptive(num_updates, num_bubbled, force_last=FORCED_LAST),
        dense(solver="DDIM"),
        adaptive(num_updates, num_bubbled, solver="DDIM"),
    )


def equal_cost_cells(published: bac.Denoising) -> tuple[Cell, ...]:
    """Uniform and unified cells with as many updates as BAC makes with bubbling: its sweeps, rounded, not its S."""
    assert published.sweeps is not None  # a Denoising with a schedule knows its sweeps
    updates = round(published.sweeps)
    return together("uniform", updates), together("unified", updates)


def few_step_cells(steps: tuple[int, ...], spacing: dict[str, str | None]) -> tuple[Cell, ...]:
    """Rivals for a curve: each deterministic solver at several numbers of dense steps."""
    return tuple(dense(k, solver, spacing.get(solver)) for solver in SOLVERS[1:] for k in steps)


def sweep_cells(updates: tuple[int, ...], bubbled: tuple[int, ...]) -> tuple[Cell, ...]:
    """BAC on DDPM over a grid of S and n, to find where it keeps the dense policy's success."""
    return tuple(adaptive(s, n) for s in updates for n in bubbled)


def _check_member(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what}: must be one of {', '.join(known)}, got {value!r}")
