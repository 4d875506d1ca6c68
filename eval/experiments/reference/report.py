"""The table and the picture of one policy."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from bac.files import write_text
from eval.experiments.reference.instruments import COLOURS, Row
from eval.report.drawing import GREY, Label, key, picture, place_labels, plain_log_axis
from eval.setup.files import write_json
from eval.setup.provenance import provenance

logger = logging.getLogger(__name__)


def publish(folder: Path, table: Sequence[Row]) -> None:
    """Write the files of one policy, which the folder is named after: the table twice, the picture, where from."""
    write_json(folder / "table.json", list(table))
    write_json(folder / "provenance.json", provenance())
    write_text(folder / "table.md", "\n".join(markdown(table)) + "\n")
    draw_front(folder / "front.png", folder.name, table)


def markdown(table: Sequence[Row]) -> list[str]:
    """The Markdown table, in order of sweeps."""
    lines = [
        "| way | sweeps | latency [ms] | n | success | minus itself [95 %] | energy distance [95 %] | shift | spread | "
        "seam | to the path |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|---:|---:|",
    ]
    for row in sorted(table, key=lambda row: -row["sweeps"]):
        latency = "" if row["latency_ms"] is None else f"{row['latency_ms']:.1f}"
        lost, energy = row["difference"], row["energy"]
        lines.append(
            f"| {row['name']} | {row['sweeps']:.1f} | {latency} | {row['n']} | {row['success'][0]:.3f} | "
            f"{lost[0]:+.3f} [{lost[1]:+.3f}, {lost[2]:+.3f}] | {energy[0]:.4f} [{energy[1]:.4f}, {energy[2]:.4f}] | "
            f"{row['shift']:.4f} | {row['spread']:.2f} | {row['seam']:.2f} | {row['path_error']:.4f} |"
        )
    return lines


def side_by_side(tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """A Markdown table of every way that more than one policy has: what is gained or lost on each, bold if shown.

    Args:
        tables: Rows by policy, the policy's own first.
    """
    by_name = {policy: {row["name"]: row for row in table[1:]} for policy, table in tables.items()}
    names = Counter(name for rows in by_name.values() for name in rows)
    sweeps = {name: mean(rows[name]["sweeps"] for rows in by_name.values() if name in rows) for name in names}
    own = [f"{table[0]['success'][0]:.3f}" for table in tables.values()]
    lines = [
        f"| way | sweeps | {' | '.join(tables)} | mean | worst |",
        "|---|---:|" + "---:|" * (len(tables) + 2),
        f"| the policy itself | | {' | '.join(own)} | | |",
    ]
    for name in sorted((name for name in names if names[name] > 1), key=lambda name: -sweeps[name]):
        found = [rows.get(name) for rows in by_name.values()]
        lost = [row["difference"][0] for row in found if row is not None]
        cells = " | ".join("" if row is None else _bold_if_shown(*row["difference"]) for row in found)
        lines.append(f"| {name} | {sweeps[name]:.1f} | {cells} | {mean(lost):+.3f} | {min(lost):+.3f} |")
    return lines


def _bold_if_shown(value: float, low: float, high: float) -> str:
    return f"**{value:+.3f}**" if low > 0 or high < 0 else f"{value:+.3f}"


def draw_front(path: Path, policy: str, table: Sequence[Row]) -> None:
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
        axes.set_title(policy, pad=22)  # above the names of the groups
        key(axes, list(COLOURS.items()))
        place_labels(axes, [Label(r["sweeps"], r["difference"][0], r["name"], "#555555", 6) for r in table[1:]])


def stored(folder: Path) -> dict[str, list[Row]]:
    """The published tables in a folder, by policy. One from before an instrument was there is left out, and named."""
    tables = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/table.json"))}
    old = [name for name, table in tables.items() if any("seam" not in row for row in table)]
    for name in old:
        logger.info("%s: its table has no jump at seams; make it anew: see %s", name, folder / name / "provenance.json")
    return {name: table for name, table in tables.items() if name not in old}
