"""The published table with one row per cell, as JSON for programs and as Markdown for readers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bac.tuning.distance import Distance
from eval.measure.intervals import Estimate, paired_score_difference, paired_success_difference, success_rate
from eval.measure.latency import Latency
from eval.play.rollout import EpisodeResult
from eval.setup.cells import Cell


@dataclass(frozen=True)
class Row:
    """One cell's results. Field names are the keys of ``table.json``; None is undefined or not measured.

    Attributes:
        name: Name of the cell.
        task: Name of the task.
        n: Number of episodes.
        success: Success rate in [0, 1].
        success_low: Lower end of its 95 % Wilson interval.
        success_high: Upper end.
        score: Mean score in [0, 1].
        paired_diff: Difference to dense DDPM-100 on the same episodes, in success, or in score for Push-T.
        paired_low: Lower end of its 95 % interval.
        paired_high: Upper end.
        latency_p50_ms: Median latency at batch 1, one thread [ms].
        latency_p95_ms: 95th percentile [ms].
        speedup: Eager dense DDPM-100 latency over this latency, medians of the same rounds.
        flops_ratio: Dense DDPM-100 FLOP over this cell's, by formula.
        sweeps: Block updates / number of blocks.
        action_error: RMS difference of actions to the dense run on the same noise, in normalised units.
        energy_distance: Between the distributions of chunks of this cell and of the policy itself, normalised units.
        energy_low: Lower end of its 95 % interval, a bootstrap over observations.
        energy_high: Upper end.
    """

    name: str
    task: str
    n: int
    success: float | None = None
    success_low: float | None = None
    success_high: float | None = None
    score: float | None = None
    paired_diff: float | None = None
    paired_low: float | None = None
    paired_high: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    speedup: float | None = None
    flops_ratio: float | None = None
    sweeps: float | None = None
    action_error: float | None = None
    energy_distance: float | None = None
    energy_low: float | None = None
    energy_high: float | None = None


def make_row(
    cell: Cell,
    task: str,
    results: Sequence[EpisodeResult],
    reference: Sequence[EpisodeResult] | None,
    *,
    judged_by_score: bool,
    latency: Latency | None,
    flops_ratio: float | None,
    sweeps: float,
    action_error: float | None = None,
    distance: Distance | None = None,
) -> Row:
    """Make a cell's row from its measurements.

    Args:
        cell: The cell.
        task: Name of the task.
        results: Episodes of the cell.
        reference: Episodes of dense DDPM-100, paired by seed; None for dense DDPM-100 itself.
        judged_by_score: Whether `paired_diff` compares scores instead of success.
        latency: Latency of the cell; None if not measured.
        flops_ratio: Dense FLOP over FLOP of the cell; None if they are not counted.
        sweeps: Block updates / number of blocks.
        action_error: Action error against the dense run on the same noise; None if undefined.
        distance: To the policy itself, as distributions of chunks; None if not measured.
    """
    row = Row(cell.name, task, len(results), flops_ratio=flops_ratio, sweeps=sweeps, action_error=action_error)
    values = asdict(row)
    if results:
        rate = success_rate(sum(result.success for result in results), len(results))
        values.update(success=rate.value, success_low=rate.low, success_high=rate.high)
        values.update(score=sum(result.score for result in results) / len(results))
        values.update(_paired(results, reference, judged_by_score=judged_by_score))
    if latency is not None:
        values.update(latency_p50_ms=latency.p50_ms, latency_p95_ms=latency.p95_ms, speedup=latency.speedup)
    if distance is not None:
        values.update(energy_distance=distance.value, energy_low=distance.low, energy_high=distance.high)
    return Row(**values)


def paired_difference(
    results: Sequence[EpisodeResult], reference: Sequence[EpisodeResult], *, judged_by_score: bool
) -> Estimate | None:
    """`results` minus `reference` over the seeds both played; None if fewer than two are shared."""
    by_seed = {result.seed: result for result in reference}
    pairs = [(by_seed[result.seed], result) for result in results if result.seed in by_seed]
    if len(pairs) < 2:
        return None
    before, after = zip(*pairs, strict=True)
    if judged_by_score:
        return paired_score_difference([r.score for r in before], [r.score for r in after])
    return paired_success_difference([r.success for r in before], [r.success for r in after])


def markdown_table(
    rows: Sequence[Row], *, num_actions: int, judged_by_score: bool, realtime: dict[str, str] | None = None
) -> str:
    """The table for readers, with rates derived from the latency.

    Args:
        rows: Dense reference first.
        num_actions: Executed actions Ta per chunk.
        judged_by_score: Whether `paired_diff` compares scores.
        realtime: Name of a cell to its result in real time.
    """
    what = "score" if judged_by_score else "success"
    header = ["method", "success [95 %]", "score", f"{what} - dense [95 %]"]
    header += ["p50 / p95 [ms]", "inference_hz", "actions/s", "speed-up", "FLOP ratio", "sweeps", "action error"]
    header += ["energy distance [95 %]"]
    header += ["real time"] if realtime else []
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for row in rows:
        cells = [row.name, _interval(row.success, row.success_low, row.success_high), _number(row.score, 3)]
        reference = row is rows[0]
        cells += ["reference" if reference else _interval(row.paired_diff, row.paired_low, row.paired_high, sign="+")]
        cells += _latency_cells(row, num_actions)
        cells += [_number(row.flops_ratio, 1, "x"), _number(row.sweeps, 1), _number(row.action_error, 4)]
        cells += [_interval(row.energy_distance, row.energy_low, row.energy_high)]
        cells += [realtime.get(row.name, "")] if realtime else []
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def plain_table(rows: Sequence[Row], *, judged_by_score: bool) -> str:
    """The most important columns for a terminal, about 110 characters wide."""
    what = "score" if judged_by_score else "success"
    lines = [["method", f"{what} [95 %]", "minus dense [95 %]", "p50 [ms]", "Hz", "speed-up", "sweeps", "error"]]
    for row in rows:
        hz = None if row.latency_p50_ms is None else 1e3 / row.latency_p50_ms
        success = _interval(row.success, row.success_low, row.success_high)
        lines.append(
            [
                row.name,
                _number(row.score, 3) if judged_by_score else success,
                _interval(row.paired_diff, row.paired_low, row.paired_high, sign="+"),
                _number(row.latency_p50_ms, 1),
                _number(hz, 1),
                _number(row.speedup, 2, "x"),
                _number(row.sweeps, 1),
                _number(row.action_error, 4),
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = [
        "  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)])
        for line in lines
    ]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


def table_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain JSON types."""
    return [asdict(row) for row in rows]


def _paired(
    results: Sequence[EpisodeResult], reference: Sequence[EpisodeResult] | None, *, judged_by_score: bool
) -> dict[str, float]:
    difference = paired_difference(results, reference or [], judged_by_score=judged_by_score)
    if difference is None:
        return {}
    return {"paired_diff": difference.value, "paired_low": difference.low, "paired_high": difference.high}


def _latency_cells(row: Row, num_actions: int) -> list[str]:
    if row.latency_p50_ms is None or row.latency_p95_ms is None:
        return ["-"] * 4
    hz = 1e3 / row.latency_p50_ms
    times = f"{row.latency_p50_ms:.1f} / {row.latency_p95_ms:.1f}"
    return [times, f"{hz:.1f}", f"{num_actions * hz:.0f}", _number(row.speedup, 2, "x")]


def _interval(value: float | None, low: float | None, high: float | None, *, sign: str = "") -> str:
    if value is None or low is None or high is None:
        return "-"
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "-" if value is None else f"{value:.{digits}f}{unit}"
