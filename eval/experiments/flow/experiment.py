"""Measures every row on one policy: its action error, its success in paired episodes, its latency, its cost to fit."""

import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import bac
from bac.adapters import find_host
from bac.solvers import AdamsBashforth
from bac.solvers.flow_fitting import NUM_FINE, FlowFitter
from bac.tuning.batches import rows_of
from bac.tuning.bench import JUDGING_DRAWS, typical
from bac.tuning.distance import distance
from eval.compared.comparison import Comparison
from eval.compared.matching import measure_cells
from eval.experiments.flow.rows import FITTED, PRESET, fitted, holding_on_own, own, rows
from eval.measure.action_error import FIRST_NOISE_SEED
from eval.measure.closed_loop import closed_loop
from eval.play.visit import visited
from eval.play.workers import play_units
from eval.setup.batches import Batch, kept, one_of
from eval.setup.cells import Cell, configure, running
from eval.setup.files import write_json
from eval.setup.noise import chunk_generator
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED

FINE = bac.Denoising(AdamsBashforth(2), tuple((NUM_FINE - step) / NUM_FINE for step in range(NUM_FINE)))


class Flow:
    """The experiment on one policy. Each part is kept on disk, and computed only where it is missing.

    Args:
        comparison: Policy and world.
        options: `flow` of ``configs/eval.yaml``.
    """

    def __init__(self, comparison: Comparison, options: Any) -> None:
        self.comparison, self.options = comparison, options
        self.policy = comparison.loaded.policy
        self.folder = comparison.settings.folder / "flow"
        self.fit = self._visited("fit", CALIBRATION_SEED, options.num_fit)
        self.held_out = self._visited("held-out", FIDELITY_SEED, options.num_held_out)
        self._references: dict[tuple[str, str], Tensor] = {}
        configure(self.policy, own())

    @cached_property
    def cells(self) -> list[Cell]:
        """Every row; the fits are kept on disk, since episodes are found again by what was played."""
        path = self.folder / "cells.json"
        if not path.exists():
            found = rows(self.fitter(self.fit), self.fitter(self.fit, own=True), self.options.steps)
            total = 2 + 5 * len(self.options.steps)
            cells = list(tqdm(found, "fit", total, unit="row"))
            for count in self.options.few_observations:
                few = self.fitter(rows_of(self.fit, slice(count)))
                cells.append(fitted(f"fitted-3, {count} observations", FITTED, few, few.fit, 3))
            for count in self.options.presets:
                cells.append(holding_on_own(bac.Denoising.preset("flow", count), f"preset-{count}", PRESET))
            write_json(path, [cell.to_document() for cell in cells])
        return [Cell.from_document(document) for document in json.loads(path.read_text())]

    def fitter(self, batch: Batch, *, own: bool = False) -> FlowFitter:
        """Fits solvers to the policy on observations, one draw of noise each."""
        return FlowFitter(find_host(self.policy), lambda: self._predict(batch), own=own)

    def costs(self) -> dict[str, list[float]]:
        """Evaluations and seconds of the reference, of one fit at three given times, and of the search for them."""
        path = self.folder / "costs.json"
        if not path.exists():
            start = time.perf_counter()
            fitter = self.fitter(self.fit)
            marks = [(fitter.num_evaluations, time.perf_counter() - start)]
            for step in (lambda: fitter.fit((0.8, 0.2, 0.05)), lambda: fitter.search(fitter.fit, 3)):
                step()
                marks.append((fitter.num_evaluations, time.perf_counter() - start))
            names = ("reference", "reference and fit", "reference, fit and search")
            write_json(path, {name: list(mark) for name, mark in zip(names, marks, strict=True)})
        return dict(json.loads(path.read_text()))

    def errors(self) -> dict[str, dict[str, Any]]:
        """Action errors of every row by name, to a fine run and to the policy's own steps; see `_errors`."""
        return self._stored("errors", lambda cell: self._errors(cell, "as fitted", self.held_out))

    def changed(self) -> dict[str, dict[str, Any]]:
        """Action errors where observations or noise differ from what was fitted on, by kind of change."""
        generator = torch.Generator().manual_seed(1)
        noises = {key: torch.randn(value.shape, generator=generator) for key, value in self.held_out.items()}
        noisy = {
            f"observations + N(0, {sigma:g})": {k: v + sigma * noises[k] for k, v in self.held_out.items()}
            for sigma in (0.1, 0.3)
        }
        shifted = {key: value + 0.3 for key, value in self.held_out.items()}
        worlds = {**noisy, "observations + 0.3": shifted, "random observations": noises}
        kinds = {name: (batch, 1.0) for name, batch in worlds.items()}
        kinds |= {f"noise x {scale:g}": (self.held_out, scale) for scale in (0.5, 1.5)}
        few = [c for c in self.cells if c.steps <= 4 and c.family in (own().family, FITTED) and "obs" not in c.name]
        return self._stored(
            "changed", lambda cell: {name: self._errors(cell, name, *kind) for name, kind in kinds.items()}, few
        )

    def distances(self) -> dict[str, dict[str, Any]]:
        """Energy distance of the played rows to the policy itself, on other noise, and the spread of their chunks."""

        def draws(cell: Cell, first: int) -> Tensor:
            with running(self.policy, cell):
                parts = [self._predict(self.held_out, draw=draw) for draw in range(first, first + JUDGING_DRAWS)]
            return torch.stack(parts).double()

        itself = draws(own(), JUDGING_DRAWS)

        def measure(cell: Cell) -> dict[str, Any]:
            found = distance(draws(cell, 0), itself)
            return {"energy": [found.value, found.low, found.high], "spread": found.spread}

        return self._stored("distances", measure, self.played)

    def play(self) -> None:
        """Play the missing episodes of the rows that are to be played."""
        settings = self.comparison.settings
        seeds = tuple(settings.seeds)
        play_units(settings, [self.comparison.unit(cell, seeds) for cell in self.played], self.comparison.log)

    @property
    def played(self) -> list[Cell]:
        """The rows that play episodes."""
        names = set(self.options.play)
        also = "observations", "preset"
        return [c for c in self.cells if c == own() or c.name in names or any(word in c.name for word in also)]

    def latencies_ms(self) -> dict[str, dict[str, float]]:
        """Median and 95th percentile of the played rows at batch 1, replayed, all interleaved [ms]."""
        path = self.folder / "latency.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        if {cell.name for cell in self.played} - set(stored):
            ways = {cell: self.comparison.denoising(cell) for cell in self.played}
            options = {"replay": True, "rounds": self.options.rounds, "progress": True}
            timings = measure_cells(self.comparison.loaded, ways, one_of(self.held_out), **options)
            stored = {cell.name: latency.to_dict() for cell, latency in timings.cells.items()}
            write_json(path, {**stored, "eager": timings.eager.to_dict()})
        return dict(json.loads(path.read_text()))

    def table(self) -> list[dict[str, Any]]:
        """One row for each way."""
        errors, latencies, settings = self.errors(), self.latencies_ms(), self.comparison.settings
        distances = self.distances()
        itself = self.comparison.results(own())
        found = []
        for cell in self.cells:
            row = {"name": cell.name, "group": cell.family, "steps": cell.steps, **errors[cell.name]}
            row["times"] = [] if cell.denoising is None else list(cell.denoising.timesteps)
            row["latency"] = latencies.get(cell.name)
            row |= distances.get(cell.name, {})
            results = self.comparison.results(cell)
            if len(results) == settings.n:
                row |= closed_loop(itself, results, by_score=settings.judged_by_score)
            found.append(row)
        return found

    def paired(self) -> list[dict[str, Any]]:
        """Differences between two rows in the same episodes, first minus second, with 95 % intervals."""
        settings, cells = self.comparison.settings, {cell.name: cell for cell in self.cells}
        found = []
        for first, second in self.options.pairs:
            both = [self.comparison.results(cells[name]) for name in (first, second) if name in cells]
            if len(both) == 2 and all(len(results) == settings.n for results in both):
                compared = closed_loop(both[1], both[0], by_score=settings.judged_by_score)
                found.append({"first": first, "second": second, "n": settings.n, "difference": compared["difference"]})
        return found

    def _stored(self, name: str, measure: Callable[[Cell], Any], cells: Sequence[Cell] = ()) -> dict[str, Any]:
        """What is measured of rows (default: every one), by name; kept on disk as it is found."""
        path = self.folder / f"{name}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        for cell in tqdm([cell for cell in cells or self.cells if cell.name not in found], name, unit="row"):
            found[cell.name] = measure(cell)
            write_json(path, found)
        return dict(found)

    def _errors(self, cell: Cell, kind: str, batch: Batch, scale: float = 1.0) -> dict[str, list[float]]:
        """Root mean square, geometric mean and largest error of the observations, to each of the two references."""
        chunks = self._chunks(cell, batch, scale)
        found = {}
        for name, itself in (("to_flow", holding_on_own(FINE, "fine", FITTED)), ("to_own", own())):
            if (name, kind) not in self._references:
                self._references[name, kind] = self._chunks(itself, batch, scale)
            each = (chunks - self._references[name, kind]).square().flatten(1).mean(1).sqrt()
            found[name] = [float(each.square().mean().sqrt()), typical(each), float(each.max())]
        return found

    def _chunks(self, cell: Cell, batch: Batch, scale: float) -> Tensor:
        with running(self.policy, cell):
            return self._predict(batch, scale).double()

    def _predict(self, batch: Batch, scale: float = 1.0, draw: int = 0) -> Tensor:
        """One chunk for every observation, from noise that is the same for every row of the table."""
        shape = self.policy.diffusion.chunk_shape
        count = len(next(iter(batch.values())))
        draws = [torch.randn(shape, generator=chunk_generator(FIRST_NOISE_SEED + row, draw)) for row in range(count)]
        self.policy.reset()
        with torch.no_grad():
            return self.policy.predict_action_chunk(batch, noise=scale * torch.stack(draws))

    def _visited(self, name: str, first_seed: int, count: int) -> Batch:
        loaded, make_env = self.comparison.loaded, self.comparison.settings.make_env
        path = self.folder / f"observations-{name}-{count}.npz"
        return kept(path, lambda: visited(loaded, make_env, first_seed, count, cell=own(), progress=True))
