"""The phases of a comparison, each resumable: calibrate, latency, episodes, report.

All results are kept under `settings.folder`, and a phase computes only what is missing. Latency is the exception: the
phase measures it anew whenever a user names the phase, because good numbers need an idle machine.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

import bac
from bac.plan.replay import replay_named
from bac.tuning.distance import Distance, distance
from eval.compared.calibrated import Calibrated
from eval.compared.matching import SpacingChooser, matched_steps, measure_cells
from eval.measure.action_error import action_chunks, action_error, reference_of
from eval.measure.flops import is_counted, policy_flops
from eval.measure.latency import Latency
from eval.play.realtime import think_steps
from eval.play.records import EpisodeLog
from eval.play.rollout import EpisodeResult
from eval.play.workers import Unit, play_units, unit_key
from eval.setup.batches import one_of
from eval.setup.cells import SOLVERS, Cell, core_cells, dense, equal_cost_cells, running, stored, sweep_cells
from eval.setup.files import write_json
from eval.setup.keys import comparison_key
from eval.setup.settings import Settings

logger = logging.getLogger(__name__)
_EAGER, _INTERCEPTED = "eager", "intercepted"
PHASES = ("calibrate", "latency", "episodes", "report")


class Comparison:
    """One policy in one world, run as many cells.

    Args:
        settings: Settings of the comparison.

    Raises:
        ScheduleError: There is no file `settings.tuned`, or it cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        _ = self.tuned_cells  # refuses a missing file before minutes of work
        self.loaded = settings.load_policy()
        self.calibrated = Calibrated(settings, self.loaded)
        self.log = EpisodeLog(settings.folder / "episodes.jsonl")
        self._denoisings: dict[Cell, bac.Denoising] = {}

    @property
    def published(self) -> Cell:
        """BAC as published. The rivals get the cost of this cell as their budget."""
        return core_cells(self.settings.num_updates, self.settings.num_bubbled)[1]

    @property
    def cached_cells(self) -> tuple[Cell, ...]:
        """Cells known after calibration: the core cells, and uniform and unified at BAC's number of sweeps."""
        core = core_cells(self.settings.num_updates, self.settings.num_bubbled)
        return _unique([*core, *equal_cost_cells(self.denoising(self.published))])

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of the table, in order: dense reference, BAC and its variants, few-step rivals, tuned, sweep."""
        sweep = sweep_cells(self.settings.sweep_updates, self.settings.sweep_bubbled)
        return _unique([*self.cached_cells, *self.few_step_cells, *self.tuned_cells, *sweep])

    @property
    def tuned_cells(self) -> tuple[Cell, ...]:
        """The cell of the tuned Denoising in a file beside the weights; empty if `settings.tuned` is None.

        Raises:
            ScheduleError: The file does not exist, or `bac.load` cannot read it.
        """
        if self.settings.tuned is None:
            return ()
        return (stored(self.settings.checkpoint / self.settings.tuned),)

    def denoising(self, cell: Cell) -> bac.Denoising:
        """The Denoising that the cell puts on the policy; `bac.Denoising()` for a dense cell."""
        if cell not in self._denoisings:
            self._denoisings[cell] = self.calibrated.denoising(cell)
        return self._denoisings[cell]

    def calibrate(self) -> None:
        """Compute observations and calibrations, and write one JSON file per Denoising."""
        folder = self.settings.folder / "denoisings"
        folder.mkdir(parents=True, exist_ok=True)
        for cell in self.cells:
            denoising = self.denoising(cell)
            if denoising != bac.Denoising():
                denoising.save(folder / f"{cell.name.replace(', ', '-').replace(' ', '-')}.json")
        self.calibrated.observations("fidelity")

    def measure_latency(self, *, anew: bool = False) -> None:
        """Choose the few-step rivals that BAC's latency buys, then time every cell.

        Args:
            anew: Choose and time even if both results exist. Otherwise chosen rivals stay, and all cells are timed
                together only if one of them has no latency yet.
        """
        if anew or not self.few_step_cells:
            self._choose_rivals()
        if anew or not self.latency_is_known:
            self._time()

    def play(self) -> None:
        """Play every missing episode of every cell, first in lock-step, then in real time."""
        settings = self.settings
        seeds = tuple(settings.seeds)
        units = [self.unit(cell, seeds) for cell in self.cells]
        late = [self.realtime_unit(cell, seeds[: settings.realtime_n]) for cell in self.realtime_cells]
        play_units(settings, units, self.log)
        play_units(settings.realtime, late, self.log)

    def unit(self, cell: Cell, seeds: tuple[int, ...], think: int = 0) -> Unit:
        """Unit of work for one cell; `think` control steps pass per chunk."""
        denoising, settings = self.denoising(cell), self.settings.realtime if think else self.settings
        return Unit(unit_key(settings, cell, denoising, think), cell, denoising, seeds, think)

    def realtime_unit(self, cell: Cell, seeds: tuple[int, ...]) -> Unit:
        """Unit of work for one cell in real time: the world goes on for the cell's measured latency."""
        return self.unit(cell, seeds, self.think_steps(cell))

    @property
    def realtime_cells(self) -> tuple[Cell, ...]:
        """Dense, BAC as published, its few-step rivals at its latency, and what was tuned.

        Empty before latency is known.
        """
        if not self.settings.realtime_n or not self.latencies:
            return ()
        return (dense(), self.published, *self.few_step_cells[: len(SOLVERS)], *self.tuned_cells)

    @cached_property
    def control_hz(self) -> float:
        """Control steps per second the world demands [Hz]."""
        env = self.settings.make_env()
        try:
            return float(env.unwrapped.control_hz)
        finally:
            env.close()

    @property
    def latency_is_known(self) -> bool:
        """Whether every cell has been timed."""
        return bool(self.few_step_cells) and all(cell in self.latencies for cell in self.cells)

    @property
    def latencies(self) -> dict[Cell, Latency]:
        """Latency of every cell that the latency phase timed; other cells are absent."""
        stored = self._stored_latencies
        keys = {cell: _cell_key(cell) for cell in self.cells}
        return {cell: Latency(**stored[key]) for cell, key in keys.items() if key in stored}

    @property
    def eager_latency(self) -> Latency | None:
        """Latency of dense DDPM-100 without `bac`, the reference of every speed-up; None before it is known."""
        stored = self._stored_latencies.get(_EAGER)
        return Latency(**stored) if stored else None

    @property
    def intercepted_latency(self) -> Latency | None:
        """Latency of BAC as published through interceptors alone; None before it is known."""
        stored = self._stored_latencies.get(_INTERCEPTED)
        return Latency(**stored) if stored else None

    @property
    def _stored_latencies(self) -> dict[str, Any]:
        return _stored(self._file("latency"))

    def results(self, cell: Cell, think: int = 0) -> list[EpisodeResult]:
        """Finished episodes of the comparison's seeds, in order of seed; `think` control steps pass per chunk."""
        episodes = self.log.episodes(self.unit(cell, (), think).key)
        return [episodes[seed] for seed in self.settings.seeds if seed in episodes]

    def action_errors(self) -> dict[Cell, float | None]:
        """Action error of every cell against its reference on fixed noise; None where it is undefined."""
        batch = self.calibrated.observations("fidelity")
        chunks: dict[Cell, Any] = {}

        def chunks_of(cell: Cell) -> Any:
            if cell not in chunks:
                with running(self.loaded.policy, cell, self.denoising(cell)) as policy:
                    chunks[cell] = action_chunks(policy, batch, num_draws=self.settings.num_draws)
            return chunks[cell]

        path = self.settings.folder / "action_error.json"
        known = _stored(path)
        for cell in self.cells:
            reference = reference_of(cell)
            key = unit_key(self.settings, cell, self.denoising(cell))
            if key not in known:
                known[key] = None if reference is None else action_error(chunks_of(cell), chunks_of(reference))
        write_json(path, known)
        return {cell: known[unit_key(self.settings, cell, self.denoising(cell))] for cell in self.cells}

    def distances(self) -> dict[Cell, Distance]:
        """Distance of every cell's action chunks, as a distribution, to the policy's own (`bac.tuning.distance`).

        The policy itself is compared with its own chunks from other noise: the floor.
        """
        batch, draws = self.calibrated.observations("fidelity"), self.settings.num_distance_draws
        path = self.settings.folder / "distances.json"
        known = _stored(path)
        keys = {cell: unit_key(self.settings, cell, self.denoising(cell)) for cell in self.cells}

        def chunks_of(cell: Cell, first_draw: int) -> Any:
            with running(self.loaded.policy, cell, self.denoising(cell)) as policy:
                return action_chunks(policy, batch, num_draws=draws, first_draw=first_draw)

        missing = [cell for cell in self.cells if keys[cell] not in known]
        own = chunks_of(self.cells[0], draws) if missing else None
        for cell in tqdm(missing, desc="distances", unit="cell", disable=not self.settings.progress):
            known[keys[cell]] = asdict(distance(chunks_of(cell, 0), own))
            write_json(path, known)
        return {cell: Distance(**known[key]) for cell, key in keys.items()}

    def think_steps(self, cell: Cell) -> int:
        """Control steps that pass while the cell computes a chunk."""
        return think_steps(self.latencies[cell].p50_ms / 1e3, self.control_hz)

    def flops_ratio(self, cell: Cell) -> float | None:
        """FLOP of a chunk of dense DDPM-100 over those of the cell; None for a policy whose FLOP are not counted."""
        policy = self.loaded.policy
        if not is_counted(policy):
            return None
        all_steps, these = (policy_flops(policy, self.denoising(c).schedule, c.steps) for c in (dense(), cell))
        return all_steps / these

    def sweeps(self, cell: Cell) -> float:
        """Sweeps of one action chunk: block updates / number of blocks."""
        return float(self.denoising(cell).sweeps or cell.steps)

    def _choose_rivals(self) -> None:
        """Give the few-step solvers as many steps as BAC's latency buys, each in its best timestep spacing."""
        settings = self.settings
        published = self.denoising(self.published)
        options = {"replay": replay_named(settings.executor), "progress": settings.progress}
        rounds = max(3, settings.latency_rounds // 3)
        steps = matched_steps(self.loaded, self.published, published, self._one, rounds=rounds, **options)
        observations = self.calibrated.observations("calibration")
        choose = SpacingChooser(self.loaded.policy, observations, num_draws=settings.num_spacing_draws)
        matched = [choose(solver, k) for solver, k in steps.items()]
        curve = [choose(solver, k) for solver in SOLVERS[1:] for k in settings.few_steps]
        write_json(self._file("few_steps"), [cell.to_document() for cell in _unique([*matched, *curve])])

    def _time(self) -> None:
        """Time every cell in interleaved rounds."""
        settings = self.settings
        measured = measure_cells(
            self.loaded,
            {cell: self.denoising(cell) for cell in self.cells},
            self._one,
            rounds=settings.latency_rounds,
            intercepted=(self.published,),
            replay=replay_named(settings.executor),
            progress=settings.progress,
        )
        rows = {_cell_key(cell): latency.to_dict() for cell, latency in measured.cells.items()}
        rows |= {_EAGER: measured.eager.to_dict(), _INTERCEPTED: measured.intercepted[self.published].to_dict()}
        write_json(self._file("latency"), rows)

    @property
    def few_step_cells(self) -> tuple[Cell, ...]:
        """The rivals: first one per solver at BAC's latency, then the curve; empty before they are chosen."""
        path = self._file("few_steps")
        return tuple(map(Cell.from_document, json.loads(path.read_text()))) if path.exists() else ()

    @property
    def _one(self) -> dict[str, Any]:
        """A batch of one observation."""
        return one_of(self.calibrated.observations("fidelity"))

    def _file(self, name: str) -> Path:
        """Path of a result that depends on the executor."""
        return self.settings.folder / f"{name}-{self.settings.executor}.json"


def _stored(path: Path) -> dict[str, Any]:
    """What a phase left in a file; empty before it has run."""
    return json.loads(path.read_text()) if path.exists() else {}


def _cell_key(cell: Cell) -> str:
    return comparison_key(cell.describe())


def _unique(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Cells in order, without those that describe the same run as an earlier cell."""
    by_key: dict[str, Cell] = {}
    for cell in cells:
        by_key.setdefault(_cell_key(cell), cell)
    return tuple(by_key.values())
