"""Success in a world that does not wait: ``python -m eval.experiments.realtime policy=pusht n=100``.

Every method has two curves. The first is success against `control_hz`, each method at its own latency: a faster world
makes the same latency last more control steps. The second is success against latency at the world's own `control_hz`,
where all methods get the same latency.

Both curves depend only on the number of control steps that a chunk takes, so points with the same number are played
once. Episodes are simulated, paired, resumable, and the same on any machine. Only the latencies are measured, unless
``realtime.recorded=FILE`` gives them.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from matplotlib.lines import Line2D

from bac.plan.replay import replay_named
from eval.compared.comparison import Comparison
from eval.compared.matching import SpacingChooser, measure_cells
from eval.measure.intervals import mean_score, paired_score_difference, paired_success_difference, success_rate
from eval.play.realtime import Pace
from eval.play.records import EpisodeLog
from eval.play.rollout import EpisodeResult
from eval.play.workers import Unit, play_units, updates_of
from eval.report.drawing import BLACK, BLUE, GREEN, ORANGE, PINK, picture, plain_log_axis, reference_band
from eval.report.film import film_cells
from eval.setup.batches import one_of
from eval.setup.cells import Cell, adaptive, dense, stored
from eval.setup.config import CONFIGS, log_to_terminal, settings_of
from eval.setup.files import write_json
from eval.setup.keys import comparison_key
from eval.setup.provenance import provenance

logger = logging.getLogger(__name__)
COLOURS = (BLACK, BLUE, GREEN, ORANGE, PINK)
MARKERS = "osD^v"  # drawn smaller and smaller, so that all are seen where methods are level
STYLES = {"act": "-", "stand_still": (0, (2, 2))}


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve.

    Attributes:
        curve: The horizontal axis, ``control_hz`` or ``latency``.
        cell: The method.
        mode: See `eval.play.realtime.MODES`.
        control_hz: Control steps per second [Hz].
        latency_ms: Median latency of a chunk [ms].
        pace: The pace of the world at this latency and `control_hz`.
    """

    curve: str
    cell: Cell
    mode: str
    control_hz: float
    latency_ms: float
    pace: Pace


class Curves:
    """The points of one policy in one world, their episodes and their table.

    Args:
        comparison: Policy, world, schedules and seeds.
        options: `realtime` of ``configs/eval.yaml``.
    """

    def __init__(self, comparison: Comparison, options: Any) -> None:
        self.comparison, self.options = comparison, options
        self.log = EpisodeLog(comparison.settings.folder / "realtime_curves.jsonl")
        settings = comparison.settings
        bac_cells = [
            adaptive(settings.num_updates, settings.num_bubbled, force_last=last) for last in options.force_last
        ]
        placed = [*comparison.tuned_cells, *(stored(Path(file)) for file in options.files)]
        self.cells = (dense(), *self._few_step_cells(), *bac_cells, *placed)
        self.latencies_ms = self._latencies()

    @property
    def points(self) -> list[CurvePoint]:
        """Every point of both curves."""
        nominal, points = self.comparison.control_hz, []
        for mode in self.options.modes:
            for cell in self.cells:
                latencies = self.latencies_ms[cell.name]
                median = sorted(latencies)[len(latencies) // 2]
                for factor in self.options.rate_factors:
                    pace = Pace.of(latencies, nominal * factor, mode)
                    points.append(CurvePoint("control_hz", cell, mode, nominal * factor, median, pace))
                for delay in self.options.delays:
                    points.append(
                        CurvePoint("latency", cell, mode, nominal, 1e3 * delay / nominal, Pace((delay,), mode))
                    )
        return points

    def play(self) -> None:
        """Play every episode that is not in the log."""
        seeds = tuple(self.comparison.settings.seeds)
        units = {unit.key: unit for unit in (self._unit(point, seeds) for point in [*self.points, self._reference])}
        play_units(self.comparison.settings.realtime, list(units.values()), self.log)

    def results(self, point: CurvePoint) -> list[EpisodeResult]:
        """Finished episodes of a point, in order of seed."""
        episodes = self.log.episodes(self._unit(point, ()).key)
        return [episodes[seed] for seed in self.comparison.settings.seeds if seed in episodes]

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain JSON types. Paired differences are to dense in lock-step."""
        return [self._row(point) for point in self.points]

    @property
    def _reference(self) -> CurvePoint:
        nominal = self.comparison.control_hz
        return CurvePoint("latency", dense(), "act", nominal, 0.0, Pace((0,)))

    def _row(self, point: CurvePoint) -> dict[str, Any]:
        results, before = self.results(point), self.results(self._reference)
        success = success_rate(sum(result.success for result in results), len(results))
        score = mean_score([result.score for result in results])
        if self.comparison.settings.judged_by_score:
            difference = paired_score_difference([r.score for r in before], [r.score for r in results])
        else:
            difference = paired_success_difference([r.success for r in before], [r.success for r in results])
        return {
            "curve": point.curve,
            "name": point.cell.name,
            "mode": point.mode,
            "control_hz": point.control_hz,
            "latency_ms": point.latency_ms,
            "delay_steps": [point.pace.delays[0], point.pace.delays[-1]],
            "n": len(results),
            **{f"success{suffix}": value for suffix, value in _parts(success)},
            **{f"score{suffix}": value for suffix, value in _parts(score)},
            **{f"paired_difference{suffix}": value for suffix, value in _parts(difference)},
        }

    def _unit(self, point: CurvePoint, seeds: tuple[int, ...]) -> Unit:
        denoising = self.comparison.denoising(point.cell)
        # Without delay both modes are lock-step, so they share episodes.
        pace = point.pace if point.pace.delays[-1] else Pace((0,))
        parts = {"updates": updates_of(denoising), "pace": asdict(pace)}
        identity = self.comparison.settings.realtime.identity
        return Unit(comparison_key(identity, point.cell.describe(), parts), point.cell, denoising, seeds, pace=pace)

    def _few_step_cells(self) -> list[Cell]:
        """DDIM cells with few steps, each in its best timestep spacing; chosen once, then read from disk."""
        path = self.comparison.settings.folder / "realtime_rivals.json"
        known = {cell.num_steps: cell for cell in _stored_cells(path) + list(self.comparison.few_step_cells)}
        known = {steps: cell for steps, cell in known.items() if cell.solver == "DDIM"}
        if any(steps not in known for steps in self.options.ddim_steps):
            loaded, calibrated = self.comparison.loaded, self.comparison.calibrated
            choose = SpacingChooser(loaded.policy, calibrated.observations("calibration"))
            known |= {steps: choose("DDIM", steps) for steps in self.options.ddim_steps if steps not in known}
        cells = [known[steps] for steps in self.options.ddim_steps]
        write_json(path, [cell.to_document() for cell in cells])
        return cells

    def _latencies(self) -> Mapping[str, Sequence[float]]:
        """Latencies of every cell [ms]: the recorded ones, or the median that this or an earlier command measured."""
        names = [cell.name for cell in self.cells]
        if self.options.recorded:
            recorded = json.loads(Path(self.options.recorded).read_text())
            if absent := [name for name in names if not recorded.get(name)]:
                raise ValueError(f"recorded: {self.options.recorded} has no latencies of {', '.join(absent)}")
            return {name: list(recorded[name]) for name in names}
        settings = self.comparison.settings
        path = settings.folder / f"realtime_latency-{settings.executor}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if any(name not in known for name in names):
            batch = one_of(self.comparison.calibrated.observations("fidelity"))
            measured = measure_cells(
                self.comparison.loaded,
                {cell: self.comparison.denoising(cell) for cell in self.cells},
                batch,
                replay=replay_named(settings.executor),
                rounds=settings.latency_rounds,
                progress=settings.progress,
            )
            known = {cell.name: [latency.p50_ms] for cell, latency in measured.cells.items()}
            write_json(path, known)
        return {name: known[name] for name in names}


def draw(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str, quantity: str) -> None:
    """Draw both curves side by side.

    Args:
        path: PNG to write.
        rows: The table.
        title: Title of the picture.
        quantity: ``success`` or ``score``.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    marks = {name: {"marker": MARKERS[i % len(MARKERS)], "ms": max(4, 9 - 1.2 * i)} for i, name in enumerate(names)}
    axis = {"control_hz": "control_hz: control steps per second [Hz]", "latency": "latency of a chunk [ms]"}
    start = next((row for row in rows if row["curve"] == "latency" and not row["delay_steps"][1]), None)
    with picture(path, 1, 2, figsize=(10.4, 4.6), sharey=True) as (figure, grid):
        for axes, (curve, label) in zip(grid[0], axis.items(), strict=True):
            if start is not None:
                reference_band(axes, *(start[f"{quantity}{suffix}"] for suffix in ("", "_low", "_high")))
            for name, mode in dict.fromkeys((row["name"], row["mode"]) for row in rows):
                line = [row for row in rows if (row["name"], row["mode"], row["curve"]) == (name, mode, curve)]
                x = [row["control_hz" if curve == "control_hz" else "latency_ms"] for row in line]
                y = [row[quantity] for row in line]
                bars = [
                    [max(0.0, row[quantity] - row[f"{quantity}_low"]) for row in line],
                    [max(0.0, row[f"{quantity}_high"] - row[quantity]) for row in line],
                ]
                look = {"color": colours[name], "linestyle": STYLES[mode], "elinewidth": 0.6, **marks[name]}
                axes.errorbar(x, y, bars, **look)
            axes.set_xlabel(label)
        plain_log_axis(grid[0, 0], sorted({row["control_hz"] for row in rows if row["curve"] == "control_hz"}))
        grid[0, 0].set_ylabel(quantity if quantity == "score" else "success rate")
        grid[0, 0].set_ylim(-0.03, 1.05)
        grid[0, 0].set_title(f"{title}: each at its own latency")
        grid[0, 1].set_title("the same latency for all")
        handles = [Line2D([], [], color=colour, label=name, **marks[name]) for name, colour in colours.items()]
        figure.legend(handles=handles, loc="outside upper center", ncol=len(handles), frameon=False, fontsize=9)


def publish(curves: Curves, folder: Path) -> list[dict[str, Any]]:
    """Write ``table.json``, ``curves.png`` and ``provenance.json``; return the table."""
    rows, settings = curves.rows(), curves.comparison.settings
    write_json(folder / "table.json", rows)
    source = "recorded" if curves.options.recorded else f"measured here, batch 1, one thread, {settings.executor}"
    write_json(folder / "provenance.json", {**provenance(), "latency": source, "latencies_ms": curves.latencies_ms})
    quantity = "score" if settings.judged_by_score else "success"
    draw(folder / "curves.png", rows, title=f"{settings.task}, n = {rows[0]['n']}", quantity=quantity)
    return rows


def film_all(curves: Curves, folder: Path, control_hz: float) -> list[Path]:
    """Film every method in mode ``act``, each at its own latency."""
    latencies_s = {cell: float(np.median(curves.latencies_ms[cell.name])) / 1e3 for cell in curves.cells}
    return film_cells(curves.comparison, latencies_s, folder, mode="act", control_hz=control_hz, animate=False)


def _parts(estimate: Any) -> list[tuple[str, float]]:
    return [("", estimate.value), ("_low", estimate.low), ("_high", estimate.high)]


def _stored_cells(path: Path) -> list[Cell]:
    return list(map(Cell.from_document, json.loads(path.read_text()))) if path.exists() else []


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Measure or read latencies, play missing episodes, write the table and the picture."""
    log_to_terminal()
    curves = Curves(Comparison(settings_of(config)), config.realtime)
    for name, latencies in curves.latencies_ms.items():
        print(f"{name:32} {sorted(latencies)[len(latencies) // 2]:8.1f} ms")
    curves.play()
    if config.realtime.film_hz:
        film_all(curves, Path(config.realtime.results), config.realtime.film_hz)
    for row in publish(curves, Path(config.realtime.results)):
        place = f"{row['control_hz']:g} Hz, {row['latency_ms']:.0f} ms ({row['delay_steps'][1]} steps)"
        print(f"{row['curve']:10} {row['mode']:11} {row['name']:32} {place:28} {row['success']:.3f} {row['score']:.3f}")


if __name__ == "__main__":
    main()
