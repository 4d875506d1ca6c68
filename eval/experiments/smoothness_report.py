"""The table and the picture of `eval.experiments.smoothness`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bac.files import write_text
from eval.report.drawing import BLACK, BLUE, ORANGE, key, picture
from eval.setup.files import write_json
from eval.setup.provenance import provenance

JERKS = "jerk inside", "at seams", "all"
COLOURS = (BLUE, ORANGE)  # of the rates


def publish(rows: Sequence[Mapping[str, Any]], folder: str | None) -> None:
    """Print the table; write ``table.json``, ``table.md``, ``jerk.png`` and ``provenance.json`` to `folder`."""
    print(table(rows))
    if folder is None:
        return
    write_json(Path(folder) / "table.json", list(rows))
    write_json(Path(folder) / "provenance.json", provenance())
    write_text(Path(folder) / "table.md", table(rows) + "\n")
    draw(Path(folder) / "jerk.png", rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    titles = "task", "control_hz, delay", "way", "n", "success, score", "difference", *JERKS, "all, relative"
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        rate = f"{row['control_hz']:g} Hz, {row['delay_steps']} steps"
        jerks = [f"{row[f'jerk_{part}']:.3g}" for part in ("inside", "seam", "all")]
        cells = [row["task"], rate, row["way"], str(row["n"]), *map(_interval, (row["success"], row["difference"]))]
        lines.append("| " + " | ".join([*cells, *jerks, _interval(row["jerk_ratio"])]) + " |")
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw jerk and success of every way, relative to the first, with their intervals; one row of axes per task."""
    tasks, (first, *ways) = ([*dict.fromkeys(row[name] for row in rows)] for name in ("task", "way"))
    colours = dict(zip(dict.fromkeys(row["control_hz"] for row in rows), COLOURS, strict=False))
    with picture(path, len(tasks), 2, figsize=(9.6, 0.9 + 2.1 * len(tasks)), sharey=True) as (figure, grid):
        for line, task in zip(grid, tasks, strict=True):
            mine = [row for row in rows if row["task"] == task and row["way"] != first]
            quantity = mine[0]["quantity"]
            _dots(line[0], mine, ways, colours, "jerk_ratio", 1.0)
            _dots(line[1], mine, ways, colours, "difference", 0.0)
            line[0].set_title(f"{task}: jerk relative to {first}")
            line[1].set_title(f"{quantity}: difference, n = {min(row['n'] for row in mine)}")
        grid[0, 0].set_yticks(range(len(ways)), ways)
        grid[0, 0].set_ylim(len(ways) - 0.5, -0.5)
        key(grid[0, 1], [(f"{rate:g} Hz", colour) for rate, colour in colours.items()], y=1.16)


def _dots(
    axes: Any,
    rows: Sequence[Mapping[str, Any]],
    ways: Sequence[str],
    colours: Mapping[float, str],
    name: str,
    same: float,
) -> None:
    axes.locator_params(axis="x", nbins=6)
    axes.axvline(same, color=BLACK, linewidth=0.8, linestyle=(0, (4, 3)))
    for row in rows:
        y = ways.index(row["way"]) + 0.14 * (1 if row["control_hz"] == max(colours) else -1)
        value, low, high = (row[name][part] for part in ("value", "low", "high"))
        axes.plot([low, high], [y, y], color=colours[row["control_hz"]], linewidth=1.4)
        axes.plot([value], [y], "o", color=colours[row["control_hz"]], markersize=5)


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
