"""The page of `eval.experiments.vla.late`: success by delay, and by control rate on several machines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bac.files import write_text
from eval.report.drawing import BLACK, GREEN, ORANGE, PINK, picture
from eval.setup.files import write_json
from eval.setup.provenance import provenance

NOTE = """Success rates with Wilson's 95 % intervals, all tasks together. The robot acts on one chunk while the next is
computed, by the rule of `bac.ControlLoop`. A delay is the number of control steps that a chunk takes; a rate and a
latency give it, and success is read at the least played delay that is as long."""


def markdown(late: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Success by delay, one line for each way; then by control rate, one line for each machine and way."""
    delays = sorted({row["delay"] for row in late})
    names = list(dict.fromkeys(row["name"] for row in late))
    found = {(row["name"], row["delay"]): row["all"] for row in late}
    n = late[0]["all"]["n"]
    lines = [f"| way, {n} episodes each | " + " | ".join(f"{d} steps late" for d in delays) + " |"]
    lines.append("|---" * (1 + len(delays)) + "|")
    for name in names:
        lines.append(f"| {name} | " + " | ".join(_interval(found[name, d]["success"]) for d in delays) + " |")
    rates = [cell["control_hz"] for cell in machines[0]["rates"]]
    lines += ["", "| machine | way | a chunk [ms] | " + " | ".join(f"{rate:g} Hz" for rate in rates) + " |"]
    lines.append("|---" * (3 + len(rates)) + "|")
    for row in machines:
        cells = " | ".join(_at(cell) for cell in row["rates"])
        lines.append(f"| {row['machine']} | {row['way']} | {row['ms']:.1f} | {cells} |")
    return lines


def publish(folder: Path, late: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, Any]]) -> None:
    """Write ``late.md``, ``late.json`` and ``late.png``."""
    write_json(folder / "late.json", {"provenance": provenance(), "rows": list(late), "machines": list(machines)})
    write_text(
        folder / "late.md", "\n".join([*markdown(late, machines), "", NOTE, "", f"`{provenance()['command']}`", ""])
    )
    with picture(folder / "late.png", figsize=(6.4, 4.2)) as (_, grid):
        axes, names = grid[0, 0], dict.fromkeys(row["name"] for row in late)
        for name, colour in zip(names, (BLACK, GREEN, ORANGE, PINK), strict=False):
            rows = [row for row in late if row["name"] == name]
            values = [row["all"]["success"] for row in rows]
            bars = [[v - low for v, low, _ in values], [high - v for v, _, high in values]]
            delays = [row["delay"] for row in rows]
            axes.errorbar(delays, [v for v, _, _ in values], bars, fmt="o-", ms=4, lw=0.9, color=colour, label=name)
        axes.set(xlabel="control steps that a chunk takes", ylabel="success over all tasks", ylim=(0, 1))
        axes.legend(fontsize=8, frameon=False)


def _at(cell: Mapping[str, Any]) -> str:
    """The success at a rate, and the delay in brackets."""
    return (
        f"never in time ({cell['delay']})" if cell["success"] is None else f"{cell['success'][0]:.2f} ({cell['delay']})"
    )


def _interval(success: Sequence[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*success)
