"""Tables and picture of the joint experiment: action error against latency, and results in closed loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.experiments.methods.found import Found
from eval.report.drawing import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, picture, plain_log_axis
from eval.setup.files import write_json
from eval.setup.provenance import provenance

EAGER = "DDPM-100, eager"
# Start of a cell's name, label of its line, colour.
LINES = (
    ("DDIM-", "DDIM, evenly spaced", GREY),
    ("DPM-Solver++-", "DPM-Solver++, evenly spaced", BLACK),
    ("UniPC-", "UniPC, evenly spaced", AMBER),
    ("fitted multistep", "fitted multistep, tuned timesteps", BLUE),
    ("DPM-Solver++ 1 tuned", "DPM-Solver++ 1, tuned timesteps", SKY),
    ("DPM-Solver++ tuned", "DPM-Solver++, tuned timesteps", GREEN),
    ("cached", "cached, taylor-1, tuned", PINK),
    ("BAC", "BAC on DDIM-100", ORANGE),
)


def publish(
    folder: Path,
    task: str,
    found: Sequence[Found],
    latencies_ms: Mapping[str, float],
    closed_loop: Sequence[Any],
    paired: Sequence[Any],
) -> None:
    """Write ``table.json``, ``front.png`` and ``provenance.json``, and print the tables.

    Args:
        folder: Folder of the files.
        task: Name of the task, for the title.
        found: Every method at every budget.
        latencies_ms: Median latency by name of the cell [ms].
        closed_loop: Rows of `joint.Joint.played`.
        paired: Rows of `joint.Joint.paired`.
    """
    rows = [one.to_row(latencies_ms.get(one.cell.name)) for one in found]
    evidence = {"closed_loop": list(closed_loop), "paired": list(paired), "eager_ms": latencies_ms.get(EAGER)}
    write_json(folder / "table.json", {"fidelity": rows, **evidence})
    write_json(folder / "provenance.json", provenance())
    if latencies_ms:
        draw(folder / "front.png", rows, title=f"{task}: solver, timesteps and cache, tuned or not")
    for line in (*fidelity_table(rows), "", *closed_loop_table(closed_loop), "", *paired_table(paired)):
        print(line)


def fidelity_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The Markdown table of every method's errors, ordered by sweeps."""
    lines = [
        "| method | sweeps | K | latency [ms] | typical error where tuned | typical error | action error |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: (round(row["sweeps"]), row["typical"])):
        fit = "" if row["fit_error"] is None else f"{row['fit_error']:.4f}"
        latency = "" if row["latency_ms"] is None else f"{row['latency_ms']:.1f}"
        steps = row["cell"]["num_steps"]
        errors = f"{fit} | {row['typical']:.4f} | {row['error']:.4f}"
        lines.append(f"| {row['name']} | {row['sweeps']:.1f} | {steps} | {latency} | {errors} |")
    return lines


def closed_loop_table(played: Sequence[Mapping[str, Any]]) -> list[str]:
    """The Markdown table of success and score with 95 % intervals, and the paired difference to dense."""
    lines = ["| method | n | success | score | minus dense [95 %] |", "|---|---:|---|---|---|"]
    for row in played:
        success, score, difference = (
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, low, high in (row["success"], row["score"], row["difference"])
        )
        lines.append(f"| {row['name']} | {row['n']} | {success} | {score} | {difference} |")
    return lines


def paired_table(paired: Sequence[Mapping[str, Any]]) -> list[str]:
    """The Markdown table of paired differences between methods in the same worlds."""
    lines = ["| method | minus | n | difference [95 %] |", "|---|---|---:|---|"]
    for row in paired:
        value, low, high = row["difference"]
        lines.append(f"| {row['name']} | {row['minus']} | {row['n']} | {value:+.3f} [{low:+.3f}, {high:+.3f}] |")
    return lines


def draw(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw typical action error against latency, one line per group of `LINES`."""
    with picture(path, figsize=(6.8, 4.6)) as (_, grid):
        axes = grid[0, 0]
        for start, _, colour in LINES:
            its = [row for row in rows if row["name"].startswith(start) and row["cell"]["solver"] != "DDPM"]
            for strided in (False, True):
                line = sorted((r["latency_ms"], r["typical"]) for r in its if ("every 5th" in r["name"]) == strided)
                style = (0, (2, 2)) if strided else "-"
                axes.plot(
                    *zip(*line, strict=True) if line else ((), ()), color=colour, linestyle=style, marker="o", ms=4
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_log_axis(axes)
        axes.set_xlabel("latency of a chunk, replayed, p50 [ms]")
        axes.set_ylabel("typical action error (normalised)")
        axes.set_title(title)
        for _, label, colour in LINES:
            axes.plot((), (), color=colour, marker="o", ms=4, label=label)
        axes.plot((), (), color=GREY, linestyle=(0, (2, 2)), label="dotted: every 5th step")
        axes.legend(fontsize=8, frameon=False)
