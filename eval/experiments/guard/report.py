"""The guard's table as JSON and Markdown, and as a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bac
from eval.report.drawing import BLUE, GREY, ORANGE, picture
from eval.setup.provenance import provenance


def write(
    folder: Path, task: str, guard: bac.Guard, rows: Sequence[Mapping[str, Any]], cost: Mapping[str, Any] | None
) -> None:
    """``table.json``, ``table.md``, ``guard.json`` and ``shifts.png``; the first row is of held-out observations."""
    folder.mkdir(parents=True, exist_ok=True)
    guard.save(folder / "guard.json")
    known = {"allowed": guard.allowed, "num_runs": guard.num_runs, "patience": guard.patience}
    known |= {"probe_every": guard.probe_every, "num_cells": guard.num_cells, "reused_cells": len(guard.cells)}
    document = {"task": task, "guard": known, "rows": list(rows), "cost": cost, "provenance": provenance()}
    (folder / "table.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "table.md").write_text(table(rows))
    draw(folder / "shifts.png", task, guard, rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| shift | n | cells above their limit | streams alarmed | chunks until alarm (median) | alarms per chunk "
        "| action error of the cache |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        until = "-" if row["chunks_to_alarm"] is None else f"{row['chunks_to_alarm']:.0f}"
        lines.append(
            f"| {row['name']} | {row['n']} | {100 * row['above']:.1f} % | {100 * row['alarmed']:.0f} % | {until} "
            f"| {100 * row['alarms_per_chunk']:.3f} % | {row['action_error']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def draw(path: Path, task: str, guard: bac.Guard, rows: Sequence[Mapping[str, Any]]) -> None:
    """Left: how many cells are above their limits. Right: how many chunks go by until an alarm."""
    places = range(len(rows))[::-1]
    with picture(path, 1, 2, figsize=(11, 0.42 * len(rows) + 1.2), sharey=True) as (_, ((left, right),)):
        colours = [GREY] + [BLUE if row["alarmed"] >= 0.5 else ORANGE for row in rows[1:]]
        left.barh(places, [100 * row["above"] for row in rows], color=colours, height=0.6)
        left.axvline(100 * guard.allowed, color="#222222", linewidth=0.8, linestyle=(0, (4, 3)))
        left.set_yticks(places, [row["name"] for row in rows])
        left.set_xlabel("watched cells above their limit [%]")
        left.set_title(f"{task}: what the guard sees (dashed: what is allowed)")
        for place, row, colour in zip(places, rows, colours, strict=True):
            if row["chunks_to_alarm"] is None:
                right.text(1.2, place, "no alarm", va="center", fontsize=9, color=colour)
                continue
            right.barh(place, row["chunks_to_alarm"], color=colour, height=0.6, left=1)
            alarmed = f"{row['chunks_to_alarm']:.0f}, in {100 * row['alarmed']:.0f} % of streams"
            right.text(row["chunks_to_alarm"] * 1.1, place, alarmed, va="center", fontsize=9)
        right.set_xscale("log")
        right.set_xlim(1, 20000)
        right.set_xlabel("chunks until the first alarm (median)")
