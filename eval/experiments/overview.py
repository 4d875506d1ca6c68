"""The picture of the README: ``python -m eval.experiments.overview`` draws it from the committed tables.

Three policies, each as it is, with fewer of its own steps, with fitted steps and with BAC: what is left, against chunks
per second.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.experiments.flow.rows import EVEN, FITTED, FITTED_TO_OWN
from eval.experiments.vla.ways import REUSE
from eval.report.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    Label,
    few_ticks,
    picture,
    place_labels,
    plain_log_axis,
    reference_band,
)

RESULTS = Path("results")
FLOWS = {
    "metaworld-ten": "SmolVLA (flow, 10 steps), ten tasks told in words",
    "two-precise-tasks/metaworld-ten": "the same, its two most precise tasks",
    "so101-pixels": "pi0 (flow, 10 steps), SO-101, two cameras",
}
OWN, FEWER, FEW, CACHE = "as it is", "fewer own steps", "fitted steps", "BAC"
COLOURS = {OWN: BLACK, FEWER: GREY, FEW: GREEN, CACHE: BLUE}


@dataclass(frozen=True)
class Point:
    """One way: its group, its name, chunks per second, and what is left with its 95 % interval."""

    group: str
    name: str
    hz: float
    value: float
    low: float
    high: float


def of_diffusion(rows: list[Mapping[str, Any]]) -> Iterator[Point]:
    """Points of a table of `eval.compare`: scores, whose interval is that of the paired difference to the first row."""
    for row in rows:
        name, score = row["name"].removesuffix(" leading"), row["score"]
        lost = (0.0, 0.0) if row["paired_diff"] is None else (row["paired_low"], row["paired_high"])
        if row is rows[0]:
            group = OWN
        elif name.startswith("fitted"):
            group = FEW
        elif name.startswith("BAC") and "on" not in name and "forced" not in name:
            group = CACHE
        elif name.split("-")[0] == "DDIM" and row["name"] != name:
            group = FEWER
        else:
            continue
        first = rows[0]["score"]
        yield Point(group, name, 1e3 / row["latency_p50_ms"], score, first + lost[0], first + lost[1])


def of_flow(rows: list[Mapping[str, Any]]) -> Iterator[Point]:
    """Points of a table of `eval.experiments.vla`: success over all tasks; other caches and files are left out."""
    groups = {EVEN: FEWER, FITTED: FEW, FITTED_TO_OWN: FEW, REUSE: CACHE}
    for row in (row for row in rows if row["group"] in groups):
        group = OWN if row is rows[0] else groups[row["group"]]
        yield Point(group, row["name"], 1e3 / row["latency"]["p50_ms"], *row["all"]["success"])


def draw(path: Path, panels: Mapping[tuple[str, str], list[Point]]) -> None:
    """Draw a panel for each policy, two to a row; a title and the name of what is left, to the points."""
    with picture(path, math.ceil(len(panels) / 2), 2, figsize=(10.4, 4.6 * math.ceil(len(panels) / 2))) as (_, grid):
        for axes, ((title, quantity), points) in zip(grid.flat, panels.items(), strict=True):
            own = points[0]
            reference_band(axes, own.value, own.low, own.high)
            for group, colour in COLOURS.items():
                shown = sorted((point for point in points if point.group == group), key=lambda point: point.hz)
                bars = [[p.value - p.low for p in shown], [p.high - p.value for p in shown]]
                style = {"fmt": "o-", "ms": 5, "lw": 0.9, "elinewidth": 0.8, "color": colour, "label": group}
                axes.errorbar([p.hz for p in shown], [p.value for p in shown], bars, **style)
            plain_log_axis(axes, few_ticks([point.hz for point in points]))
            axes.set(title=title, ylabel=quantity, ylim=(0.35, 1.05))
            axes.set_xlabel("action chunks per second, replayed, one thread")
            place_labels(axes, [Label(p.hz, p.value, p.name, COLOURS[p.group], 7) for p in points])
        grid[0, 0].legend(fontsize=8, frameon=False, loc="lower left")


def main() -> None:
    """Draw the picture from the committed tables."""
    diffusion = json.loads((RESULTS / "pusht/table.json").read_text())
    flow = {name: json.loads((RESULTS / f"vla/{name}/table.json").read_text())["rows"] for name in FLOWS}
    panels = {
        ("DP-T (DDPM, 100 steps), Push-T, from states", "score"): list(of_diffusion(diffusion)),
        **{(title, "success"): list(of_flow(flow[name])) for name, title in FLOWS.items()},
    }
    draw(RESULTS / "success_vs_hz.png", panels)


if __name__ == "__main__":
    main()
