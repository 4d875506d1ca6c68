"""Write a comparison's evidence into a folder: table, report, pictures, video and provenance."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bac
from bac.files import drafted, write_text
from bac.recording import record_features
from eval.compared.comparison import Comparison
from eval.measure.intervals import Estimate, mean_score, success_rate
from eval.measure.latency import Latency
from eval.play.rollout import EpisodeResult
from eval.report import figures
from eval.report.figures import Point
from eval.report.film import film_cells
from eval.report.narrative import EXECUTION, heading, report_text
from eval.report.table import Row, make_row, markdown_table, table_json
from eval.setup.cells import Cell, adaptive, dense, running
from eval.setup.files import write_json
from eval.setup.provenance import provenance

logger = logging.getLogger(__name__)
FEATURE_BATCH = 8


def build_rows(comparison: Comparison) -> list[Row]:
    """Make one row per cell, dense reference first."""
    settings = comparison.settings
    cells, latencies = comparison.cells, comparison.latencies
    errors, distances = comparison.action_errors(), comparison.distances()
    reference = comparison.results(cells[0])
    return [
        make_row(
            cell,
            settings.task,
            comparison.results(cell),
            None if cell == cells[0] else reference,
            judged_by_score=settings.judged_by_score,
            latency=latencies.get(cell),
            flops_ratio=comparison.flops_ratio(cell),
            sweeps=comparison.sweeps(cell),
            action_error=errors[cell],
            distance=distances[cell],
        )
        for cell in cells
    ]


def publish(comparison: Comparison, folder: Path, *, video: bool = True) -> list[Row]:
    """Write ``table.json``, ``table.md``, ``report.md``, ``provenance.json``, episodes, schedule, pictures and video.

    Args:
        comparison: Comparison with measured latency and played episodes.
        folder: Folder of the files.
        video: Whether to film dense and BAC in real time, if their latency is known.

    Returns:
        The rows of the table.
    """
    settings = comparison.settings
    folder.mkdir(parents=True, exist_ok=True)
    rows = build_rows(comparison)
    write_json(folder / "table.json", table_json(rows))
    source = _source(comparison)
    write_json(folder / "provenance.json", source)
    comparison.denoising(comparison.published).save(folder / "bac_schedule.json")
    _write_episodes(comparison, folder / "episodes.csv")
    draw(comparison, folder)
    realtime = {
        cell.name: f"{_quality(results, settings.judged_by_score)} (n = {len(results)})"
        for cell in comparison.realtime_cells
        if len(results := comparison.results(cell, comparison.think_steps(cell))) > 1
    }
    table = markdown_table(
        rows,
        num_actions=comparison.loaded.policy.config.n_action_steps,
        judged_by_score=settings.judged_by_score,
        realtime=realtime,
    )
    write_text(folder / "table.md", table)
    if video and comparison.latencies:
        film_pair(comparison, folder)
    write_text(folder / "report.md", report_text(comparison, table, source, folder))
    return rows


def _write_episodes(comparison: Comparison, path: Path) -> None:
    """Write every episode as a line of CSV. `waiting` counts the control steps that pass while a chunk is made."""
    cells = [(cell, 0) for cell in comparison.cells]
    cells += [(cell, comparison.think_steps(cell)) for cell in comparison.realtime_cells]
    with drafted(path) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "waiting", "seed", "success", "score", "num_control_steps"])
        for cell, waiting in cells:
            for episode in comparison.results(cell, waiting):
                values = episode.seed, int(episode.success), round(episode.score, 4), episode.num_control_steps
                writer.writerow([cell.name, waiting, *values])


def draw(comparison: Comparison, folder: Path) -> None:
    """Draw every picture that has data."""
    settings = comparison.settings
    judged_by_score = settings.judged_by_score
    quantity = "score" if judged_by_score else "success rate"
    title = f"{heading(settings)}, n = {settings.n} paired episodes"
    points = [
        Point(cell, _quality(results, judged_by_score), _hz(comparison, cell), comparison.sweeps(cell))
        for cell in comparison.cells
        if len(results := comparison.results(cell)) > 1
    ]
    swept = {cell.name for cell in _sweep_only(comparison)}
    if points and points[0].cell == dense():
        shown = [point for point in points if point.cell.name not in swept]
        figures.success_against_hz(folder / "success_vs_hz.png", shown, title=title, quantity=quantity)
        if swept:
            figures.sweep_lines(folder / "sweep.png", points, title=f"{title}: BAC on DDPM-100", quantity=quantity)
    published = comparison.published
    calibration = comparison.calibrated.calibration(published)
    alone = adaptive(settings.num_updates, 0)
    before, after = (comparison.denoising(cell).schedule for cell in (alone, published))
    figures.schedule_grid(folder / "schedule.png", calibration.blocks, before, after)
    figures.similarity_matrices(folder / "similarity.png", calibration, after)
    errors = {
        "without BUA (ACS alone)": relative_errors(comparison, alone),
        f"with BUA (n = {settings.num_bubbled})": relative_errors(comparison, published),
    }
    figures.caching_error_over_steps(folder / "caching_error.png", calibration.blocks, errors)


def relative_errors(comparison: Comparison, cell: Cell) -> np.ndarray:
    """Relative error of each block's output in the cached run against the dense run on the same draws, `[N, K]`.

    The error is mean |cached - dense| over mean |dense|, over all elements of a batch of observations that were not
    used for calibration.
    """
    observations = comparison.calibrated.observations("fidelity")
    batch = {key: values[:FEATURE_BATCH] for key, values in observations.items()}
    policy = comparison.loaded.policy
    with running(policy, cell.sampler):
        reference = record_features(policy, batch)
    with running(policy, cell, comparison.denoising(cell)):
        cached = record_features(policy, batch)
    return np.stack(
        [
            ((cached[name] - wanted).abs().flatten(1).mean(1) / wanted.abs().flatten(1).mean(1)).numpy()
            for name, wanted in reference.items()
        ]
    )


def film_pair(comparison: Comparison, folder: Path) -> list[Path]:
    """Film dense and BAC, each with its measured latency."""
    pair = (dense(), comparison.published)
    return film_cells(comparison, {cell: comparison.latencies[cell].p50_ms / 1e3 for cell in pair}, folder)


def _source(comparison: Comparison) -> dict[str, Any]:
    settings, latencies = comparison.settings, comparison.latencies
    calibration = comparison.calibrated.calibration(comparison.published)
    halves = [bac.adaptive_schedule(half, settings.num_updates, num_bubbled=0) for half in calibration.halves]
    return {
        **provenance(),
        "latency": f"batch 1, float32, one thread, {EXECUTION[settings.executor]}",
        "policy": settings.policy,
        **settings.identity,
        "episodes": {"n": settings.n, "first_seed": settings.first_seed},
        "calibration": {
            "runs": calibration.num_runs,
            "similarity_std": float(calibration.similarity_std.mean()),
            "acs_updates_that_differ_between_halves": halves[0].num_changed(halves[1]),
            "acs_updates": halves[0].num_updates_total,
        },
        "latency_clock": sorted({latency.clock for latency in latencies.values()}),
        "latency_samples": max((latency.num_samples for latency in latencies.values()), default=0),
        "latency_eager_dense": _plain(comparison.eager_latency),
        "latency_intercepted_bac": _plain(comparison.intercepted_latency),
        "latency_rejected": max((latency.num_rejected for latency in latencies.values()), default=0),
    }


def _plain(latency: Latency | None) -> dict[str, Any] | None:
    return None if latency is None else latency.to_dict()


def _quality(results: Sequence[EpisodeResult], judged_by_score: bool) -> Estimate:
    if judged_by_score:
        return mean_score([result.score for result in results])
    return success_rate(sum(result.success for result in results), len(results))


def _hz(comparison: Comparison, cell: Cell) -> float | None:
    latency = comparison.latencies.get(cell)
    return None if latency is None else 1e3 / latency.p50_ms


def _sweep_only(comparison: Comparison) -> list[Cell]:
    main = {*comparison.cached_cells, *comparison.few_step_cells, *comparison.tuned_cells}
    return [cell for cell in comparison.cells if cell not in main]
