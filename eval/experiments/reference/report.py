"""The table of one policy, and over all policies: which distance foretells the loss of success?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from bac.files import write_text
from eval.experiments.reference.rows import GROUPS
from eval.report.drawing import BLUE, GREEN, GREY, ORANGE, PINK, Label, key, picture, place_labels, plain_log_axis
from eval.setup.files import write_json
from eval.setup.provenance import provenance

COLOURS = dict(zip(GROUPS, (GREY, BLUE, ORANGE, GREEN, PINK), strict=True))
INSTRUMENTS = {  # name in the table, from a row
    "energy distance": lambda row: row["energy"][0],
    "error to the deterministic path": lambda row: row["path_error"],
    "mean shift": lambda row: row["shift"],
    "spread ratio off 1": lambda row: abs(row["spread"] - 1),
}
Row = Mapping[str, Any]


def publish(folder: Path, task: str, table: Sequence[Row]) -> None:
    """Write ``table.json``, ``table.md``, ``front.png`` and ``provenance.json`` of one policy."""
    write_json(folder / "table.json", list(table))
    write_json(folder / "provenance.json", provenance())
    write_text(folder / "table.md", "\n".join(markdown(table)) + "\n")
    draw_front(folder / "front.png", task, table)


def markdown(table: Sequence[Row]) -> list[str]:
    """The Markdown table, in order of sweeps."""
    lines = [
        "| way | sweeps | latency [ms] | n | success | minus itself [95 %] | energy distance [95 %] | shift | spread | "
        "to the path |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|---:|",
    ]
    for row in sorted(table, key=lambda row: -row["sweeps"]):
        latency = "" if row["latency_ms"] is None else f"{row['latency_ms']:.1f}"
        lost, energy = row["difference"], row["energy"]
        lines.append(
            f"| {row['name']} | {row['sweeps']:.1f} | {latency} | {row['n']} | {row['success'][0]:.3f} | "
            f"{lost[0]:+.3f} [{lost[1]:+.3f}, {lost[2]:+.3f}] | {energy[0]:.4f} [{energy[1]:.4f}, {energy[2]:.4f}] | "
            f"{row['shift']:.4f} | {row['spread']:.2f} | {row['path_error']:.4f} |"
        )
    return lines


def correlations(tables: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float]]:
    """Spearman's rank correlation of each instrument with the loss, for every policy and over all rows.

    Args:
        tables: Rows by policy. The policy's own row is left out: its loss is zero by definition.
    """
    found: dict[str, dict[str, float]] = {}
    for name, instrument in INSTRUMENTS.items():
        by_policy = {task: _rank(table[1:], instrument) for task, table in tables.items()}
        pooled = [row for table in tables.values() for row in table[1:]]
        found[name] = {**by_policy, "all": _rank(pooled, instrument)}
    return found


def _rank(table: Sequence[Row], instrument: Any) -> float:
    return float(spearmanr([instrument(row) for row in table], [-row["difference"][0] for row in table]).statistic)


def draw_front(path: Path, task: str, table: Sequence[Row]) -> None:
    """Draw success (or score), less the policy's own, against sweeps."""
    with picture(path, figsize=(7.4, 4.6)) as (_, grid):
        axes = grid[0, 0]
        axes.axhline(0, color=GREY, lw=0.8)
        for row in table[1:]:
            value, low, high = row["difference"]
            bars = [[value - low], [high - value]]
            axes.errorbar(row["sweeps"], value, bars, fmt="o", ms=4, color=COLOURS[row["group"]], elinewidth=0.7)
        plain_log_axis(axes)
        axes.set(xlabel="evaluations of the denoiser (sweeps)", ylabel="minus the policy itself")
        axes.set_title(task, pad=22)  # above the names of the groups
        key(axes, list(COLOURS.items()))
        place_labels(axes, [Label(r["sweeps"], r["difference"][0], r["name"], "#555555", 6) for r in table[1:]])


def draw_instruments(path: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Draw the loss against every instrument, one point for each row of each policy."""
    found = correlations(tables)
    with picture(path, 1, len(INSTRUMENTS), figsize=(3.1 * len(INSTRUMENTS), 3.1)) as (_, grid):
        for axes, (name, instrument) in zip(grid[0], INSTRUMENTS.items(), strict=True):
            for table in tables.values():
                for row in table[1:]:
                    axes.plot(instrument(row), -row["difference"][0], "o", ms=3.5, color=COLOURS[row["group"]])
            axes.set(xlabel=name, title=f"rank correlation {found[name]['all']:.2f}")
        grid[0, 0].set_ylabel("loss of success or score")


def stored(folder: Path) -> dict[str, list[Row]]:
    """The published tables in a folder, by policy."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/table.json"))}
