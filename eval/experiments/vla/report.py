"""The table of `eval.experiments.vla`, as markdown, as JSON and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bac.files import write_text
from eval.experiments.vla.measures import rank_correlation
from eval.experiments.vla.ways import GROUPS
from eval.report.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    few_ticks,
    picture,
    plain_log_axis,
    reference_band,
)
from eval.setup.files import write_json
from eval.setup.provenance import provenance

COLOURS = dict(zip(GROUPS, (GREY, GREEN, BLUE, ORANGE, PINK, BLACK), strict=True))
Row = Mapping[str, Any]
NOTE = """Success rates; 95 % intervals of Wilson, and of Newcombe for paired differences over all episodes. NFE:
evaluations of the action expert. Difference to own steps: to the policy's own steps, as many as these evaluations
allow. Action error: to the first row, root mean square / geometric mean, in normalised units. Spread: how far other
noise (8 draws) moves a chunk, over how far it moves the first row's. A chunk is timed replayed, at batch 1 on one
thread, with vision and language. Jerk: root of the mean squared third difference of the executed actions, inside
chunks / across their seams, in the action's units per control step^3."""
NUMBERS = {  # what may foretell the loss
    "action error, rms": lambda row: row["error"][0],
    "action error, typical": lambda row: row["error"][1],
    "spread off 1": lambda row: abs(row["spread"] - 1),
    "spread, least first": lambda row: -row["spread"],
    "jerk at seams": lambda row: row["jerk"]["seam"],
    "evaluations, fewest first": lambda row: -row["evaluations"],
}


def markdown(table: Sequence[Row]) -> list[str]:
    """Two tables with a line for each way: success with its cost, and success task by task."""
    tasks = list(table[0]["tasks"])
    n = table[0]["tasks"][tasks[0]]["n"]
    lines = [
        f"| way | NFE | success, {len(tasks)} x {n} episodes | difference to {table[0]['name']} "
        "| difference to own steps | action error | spread | chunk p50 / p95 [ms] | Hz | jerk inside / seam |",
        "|---" * 10 + "|",
        *(_line(row) for row in table),
    ]
    if len(tasks) == 1:
        return lines
    lines += [
        "",
        "| way | " + " | ".join(task.removesuffix("-v3") for task in tasks) + " |",
        "|---" * (1 + len(tasks)) + "|",
    ]
    for row in table:
        each = " | ".join(f"{row['tasks'][task]['success'][0]:.2f}" for task in tasks)
        lines.append(f"| {row['name']} | {each} |")
    return lines


def correlations(table: Sequence[Row]) -> dict[str, float | None]:
    """Rank correlation of each of `NUMBERS` with the success lost, over all rows but the first."""
    return {name: rank_correlation(table[1:], number) for name, number in NUMBERS.items()}


def publish(folder: Path, table: Sequence[Row], eager: Mapping[str, Any]) -> None:
    """Write ``table.md``, ``table.json`` and ``steps.png``.

    Args:
        folder: Made if it does not exist.
        table: Rows of `Experiment.table`; the policy itself first.
        eager: Latency of the untouched policy, measured in the same rounds.
    """
    found = correlations(table)
    write_json(
        folder / "table.json",
        {"provenance": provenance(), "rows": list(table), "eager": dict(eager), "rank_correlation": found},
    )
    told = ", ".join(f"{name} {'none' if value is None else f'{value:.2f}'}" for name, value in found.items())
    lines = [
        *markdown(table),
        "",
        f"The untouched policy, run by PyTorch, takes {eager['p50_ms']:.1f} / {eager['p95_ms']:.1f} ms a chunk.",
        f"Rank correlation with the success lost, over {len(table) - 1} rows: {told}.",
        "",
        NOTE,
        "",
        f"`{provenance()['command']}`",
        "",
    ]
    write_text(folder / "table.md", "\n".join(lines))
    draw(folder / "steps.png", table)


def draw(path: Path, table: Sequence[Row]) -> None:
    """Draw success against evaluations, and against chunks per second."""
    with picture(path, 1, 2, figsize=(10.4, 4.4), sharey=True) as (_, grid):
        by_steps, by_rate = grid[0]
        for axes in grid[0]:
            reference_band(axes, *table[0]["all"]["success"])
        plain_log_axis(by_steps)
        plain_log_axis(by_rate, few_ticks([_rate(row) for row in table]))
        for group in GROUPS:
            rows = sorted((row for row in table if row["group"] == group), key=lambda row: row["evaluations"])
            if not rows:
                continue
            values, low, high = zip(*(row["all"]["success"] for row in rows), strict=True)
            bars = [
                [v - lo for v, lo in zip(values, low, strict=True)],
                [h - v for v, h in zip(values, high, strict=True)],
            ]
            style = {"fmt": "o-", "ms": 4, "lw": 0.9, "elinewidth": 0.7, "color": COLOURS[group], "label": group}
            by_steps.errorbar([row["evaluations"] for row in rows], values, bars, **style)
            by_rate.errorbar([_rate(row) for row in rows], values, bars, **style)
        by_steps.set(xlabel="evaluations of the action expert", ylabel="success over all tasks", ylim=(0, 1))
        by_rate.set(xlabel="chunks per second, replayed, one thread")
        by_steps.legend(fontsize=8, frameon=False, loc="lower right")


def _line(row: Row) -> str:
    success, lost = "{:.3f} [{:.3f}, {:.3f}]".format(*row["all"]["success"]), _signed(row["all"]["difference"])
    latency, jerk, rival = row["latency"], row["jerk"], row.get("rival")
    against = "" if rival is None else f"{_signed(rival['difference'])} ({rival['name']})"
    return (
        f"| {row['name']} | {row['evaluations']:.3g} | {success} | {lost} | {against} | "
        f"{row['error'][0]:.3f} / {row['error'][1]:.3f} | {row['spread']:.2f} | "
        f"{latency['p50_ms']:.1f} / {latency['p95_ms']:.1f} | "
        f"{_rate(row):.0f} | {_number(jerk['inside'])} / {_number(jerk['seam'])} |"
    )


def _signed(difference: Sequence[float]) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rate(row: Row) -> float:
    return 1e3 / float(row["latency"]["p50_ms"])
