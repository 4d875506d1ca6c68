"""Measures every row: its distances to the policy itself, its success in paired episodes, its latency."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bac.tuning.batches import in_parts
from bac.tuning.bench import JUDGING_DRAWS, Bench, typical
from bac.tuning.distance import Distance, distance
from eval.compared.comparison import Comparison
from eval.compared.matching import measure_cells
from eval.experiments.reference.rows import OWN, chosen, rows
from eval.experiments.reference.seam import halves, jump, visited_in_turn
from eval.measure.action_error import action_chunks
from eval.measure.closed_loop import closed_loop
from eval.play.visit import visited
from eval.play.workers import play_units
from eval.setup.batches import Batch, kept, one_of
from eval.setup.cells import Cell, configure, dense, running
from eval.setup.files import write_json
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED

BATCH = 16
PATH = dense(100, "DDIM")  # the deterministic path


class Reference:
    """The experiment on one policy. Each part is kept on disk, and computed only where it is missing.

    Args:
        comparison: Policy and world.
        options: `reference` of ``configs/eval.yaml``.
    """

    def __init__(self, comparison: Comparison, options: Any) -> None:
        self.comparison, self.options = comparison, options
        self.policy = comparison.loaded.policy
        self.folder = comparison.settings.folder / "reference"
        self.fit = self._visited("fit", CALIBRATION_SEED, options.num_fit)
        self.held_out = self._visited("held-out", FIDELITY_SEED, options.num_held_out)
        configure(self.policy, OWN)
        self.bench = Bench(self.policy, {"fit": in_parts(self.fit, BATCH), "held out": in_parts(self.held_out, BATCH)})

    @cached_property
    def cells(self) -> list[Cell]:
        """Every row; the fits are kept on disk, since episodes are found again by what was played."""
        path = self.folder / "cells.json"
        if not path.exists():
            calibration = self.comparison.calibrated.calibration(OWN)
            configure(self.policy, OWN)
            options = {"steps": self.options.steps, "updates": self.options.updates}
            write_json(path, [cell.to_document() for cell in rows(self.bench, calibration, **options)])
        made = [Cell.from_document(document) for document in json.loads(path.read_text())]
        return [*made, *(chosen(Path(file)) for file in self.options.files)]

    def distances(self) -> dict[str, dict[str, Any]]:
        """Distances of every row by name: ``energy`` (with interval), ``shift``, ``spread``, ``path_error``."""
        path = self.folder / "distances.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        if all(cell.name in found for cell in self.cells):
            return found
        own, floor = (self._chunks(OWN, first) for first in (JUDGING_DRAWS, 2 * JUDGING_DRAWS))
        to_path = self._chunks(PATH, 0)
        for cell in tqdm(self.cells, desc="distances", unit="row"):
            if cell.name not in found:
                chunks = floor if cell == self.cells[0] else self._chunks(cell, 0)
                found[cell.name] = _document(distance(chunks, own), chunks, to_path)
                write_json(path, found)
        return found

    def seams(self) -> dict[str, float]:
        """Jump at the seam of two chunks of every row by name, divided by the policy's own from other draws."""
        path = self.folder / "seams.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        if all(cell.name in found for cell in self.cells):
            return found
        before, after = halves(self._kept("pairs", self.options.num_held_out, visited_in_turn, FIDELITY_SEED))

        def jump_of(cell: Cell, first: int) -> float:
            chunks = (self._chunks(cell, first + i * JUDGING_DRAWS, batch) for i, batch in enumerate((before, after)))
            return jump(*chunks)

        own = jump_of(OWN, 2 * JUDGING_DRAWS)
        for cell in tqdm(self.cells, desc="seams", unit="row"):
            if cell.name not in found:
                found[cell.name] = jump_of(cell, 0) / own
                write_json(path, found)
        return found

    def _chunks(self, cell: Cell, first: int, batch: Batch | None = None) -> Any:
        """`JUDGING_DRAWS` chunks of every held-out observation, from draw `first` on, `[draws, N, Ta, Da]`."""
        batch = self.held_out if batch is None else batch
        with running(self.policy, cell, self.comparison.denoising(cell)) as policy:
            return action_chunks(policy, batch, num_draws=JUDGING_DRAWS, first_draw=first)

    def play(self) -> None:
        """Play the missing episodes of every row."""
        seeds = tuple(self.comparison.settings.seeds)
        play_units(self.comparison.settings, [self.comparison.unit(c, seeds) for c in self.cells], self.comparison.log)

    def latencies_ms(self) -> dict[str, float]:
        """Median latency of every row at batch 1, replayed, all interleaved [ms]."""
        path = self.folder / "latency.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        if {cell.name for cell in self.cells} - set(stored):
            ways = {cell: self.comparison.denoising(cell) for cell in self.cells}
            options = {"replay": True, "rounds": self.options.rounds, "progress": True}
            timings = measure_cells(self.comparison.loaded, ways, one_of(self.held_out), **options)
            stored = {cell.name: latency.p50_ms for cell, latency in timings.cells.items()}
            write_json(path, stored)
        return stored

    def table(self) -> list[dict[str, Any]]:
        """One row for each way that was played in all worlds."""
        distances, seams, latencies = self.distances(), self.seams(), self.latencies_ms()
        settings, own = self.comparison.settings, self.comparison.results(self.cells[0])
        return [
            {
                "name": cell.name,
                "group": cell.family,
                "sweeps": self.comparison.sweeps(cell),
                "latency_ms": latencies.get(cell.name),
                **distances[cell.name],
                "seam": seams[cell.name],
                **closed_loop(own, self.comparison.results(cell), by_score=settings.judged_by_score),
            }
            for cell in self.cells
            if len(self.comparison.results(cell)) == settings.n
        ]

    def _visited(self, name: str, first_seed: int, count: int) -> Batch:
        return self._kept(name, count, visited, first_seed, progress=True)

    def _kept(self, name: str, count: int, make: Callable[..., Batch], first_seed: int, **options: Any) -> Batch:
        """`count` observations of the policy itself, made once."""
        loaded, make_env = self.comparison.loaded, self.comparison.settings.make_env
        path = self.folder / f"observations-{name}-{count}.npz"
        return kept(path, lambda: make(loaded, make_env, first_seed, count, cell=OWN, **options))


def _document(found: Distance, chunks: Any, to_path: Any) -> dict[str, Any]:
    values = asdict(found)
    errors = (chunks.double() - to_path.double()).square().flatten(2).mean(2).sqrt().flatten()
    energy = [values["value"], values["low"], values["high"]]
    return {"energy": energy, "shift": found.shift, "spread": found.spread, "path_error": typical(errors)}
