"""The guard's table as JSON and Markdown, and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bac
from bac.files import write_text
from eval.report.drawing import BLUE, GREY, ORANGE, picture
from eval.setup.files import write_json
from eval.setup.provenance import provenance


def write(
    folder: Path, task: str, guard: bac.Guard, shifts: Sequence[Mapping[str, Any]], cost: Mapping[str, Any] | None
) -> None:
    """Write ``table.json``, ``table.md``, ``guard.json``, ``shifts.png``. Held-out observations are the first row."""
    known = {"allowed": guard.allowed, "num_runs": guard.num_runs, "patience": guard.patience}
    known |= {"probe_every": guard.probe_every, "num_cells": guard.num_cells, "reused_cells": len(guard.cells)}
    document = {"task": task, "guard": known, "rows": list(shifts), "cost": cost, "provenance": provenance()}
    write_json(folder / "table.json", document)
    guard.save(folder / "guard.json")
    write_text(folder / "table.md", table(shifts))
    draw(folder / "shifts.png", task, guard, shifts)


def table(shifts: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    lines = [
        "| shift | n | cells above their limit | streams alarmed | chunks until alarm (median) | alarms per chunk "
        "| action error of the cache |",
        "|---|---|---|---|---|---|---|",
    ]
    for shift in shifts:
        until = "-" if shift["chunks_to_alarm"] is None else f"{shift['chunks_to_alarm']:.0f}"
        lines.append(
            f"| {shift['name']} | {shift['n']} | {100 * shift['above']:.1f} % | {100 * shift['alarmed']:.0f} % "
            f"| {until} | {100 * shift['alarms_per_chunk']:.3f} % | {shift['action_error']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def draw(path: Path, task: str, guard: bac.Guard, shifts: Sequence[Mapping[str, Any]]) -> None:
    """Draw the share of cells above their limits (left), and the chunks until the first alarm (right)."""
    places = range(len(shifts))[::-1]
    with picture(path, 1, 2, figsize=(11, 0.42 * len(shifts) + 1.2), sharey=True) as (_, ((left, right),)):
        colours = [GREY] + [BLUE if shift["alarmed"] >= 0.5 else ORANGE for shift in shifts[1:]]
        left.barh(places, [100 * shift["above"] for shift in shifts], color=colours, height=0.6)
        left.axvline(100 * guard.allowed, color="#222222", linewidth=0.8, linestyle=(0, (4, 3)))
        left.set_yticks(places, [shift["name"] for shift in shifts])
        left.set_xlabel("watched cells above their limit [%]")
        left.set_title(f"{task}: what the guard sees (dashed: what is allowed)")
        for place, shift, colour in zip(places, shifts, colours, strict=True):
            if shift["chunks_to_alarm"] is None:
                right.text(1.2, place, "no alarm", va="center", fontsize=9, color=colour)
                continue
            right.barh(place, shift["chunks_to_alarm"], color=colour, height=0.6, left=1)
            alarmed = f"{shift['chunks_to_alarm']:.0f}, in {100 * shift['alarmed']:.0f} % of streams"
            right.text(shift["chunks_to_alarm"] * 1.1, place, alarmed, va="center", fontsize=9)
        right.set_xscale("log")
        right.set_xlim(1, 20000)
        right.set_xlabel("chunks until the first alarm (median)")
