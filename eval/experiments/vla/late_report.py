"""The page of `eval.experiments.vla.late`: success by delay, and by control rate on several machines."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from bac.files import write_text
from eval.report.drawing import BLACK, GREEN, ORANGE, PINK, picture, plain_log_axis
from eval.setup.files import write_json
from eval.setup.provenance import provenance

NOTE = """Success rates with Wilson's 95 % intervals, all tasks together. The robot acts on one chunk while the next is
computed, by the rule of `bac.ControlLoop`. A delay is the number of control steps that a chunk takes; a rate and a
latency give it, and success is read at the least played delay that is as long.
Never in time: a chunk takes longer than any delay that was played."""
COLOURS = BLACK, GREEN, ORANGE, PINK


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
    draw(folder / "late.png", late, machines)


def draw(path: Path, late: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, Any]]) -> None:
    """Draw success against the control steps that a chunk takes; and, read off that, against every machine's rate."""
    names = list(dict.fromkeys(row["name"] for row in late))
    colours = dict(zip(names, cycle(COLOURS)))
    lines = dict(zip(dict.fromkeys(row["machine"] for row in machines), cycle((":", "-", "-.", "--"))))
    with picture(path, 1, 2, figsize=(11.0, 4.4), sharey=True) as (_, grid):
        by_delay, by_rate = grid[0]
        for name in names:
            rows = [row for row in late if row["name"] == name]
            values = [row["all"]["success"] for row in rows]
            bars = [[v - low for v, low, _ in values], [high - v for v, _, high in values]]
            style = {"fmt": "o-", "ms": 4, "lw": 0.9, "color": colours[name], "label": name}
            by_delay.errorbar([row["delay"] for row in rows], [v for v, _, _ in values], bars, **style)
        for row in machines:
            seen = [math.nan if cell["success"] is None else cell["success"][0] for cell in row["rates"]]
            label = f"{row['machine']}, {row['way']}: {row['ms']:.0f} ms"
            style = {"ls": lines[row["machine"]], "lw": 1.3, "color": colours[row["way"]], "label": label}
            by_rate.plot([cell["control_hz"] for cell in row["rates"]], seen, **style)
        by_delay.set(xlabel="control steps that a chunk takes", ylabel="success over all tasks", ylim=(0, 1))
        plain_log_axis(by_rate, [cell["control_hz"] for cell in machines[0]["rates"]])
        by_rate.set(xlabel="control steps per second [Hz]")
        by_delay.legend(fontsize=8, frameon=False)
        by_rate.legend(
            fontsize=6.5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=3
        )


def _at(cell: Mapping[str, Any]) -> str:
    """The success at a rate, and the delay in brackets."""
    return (
        f"never in time ({cell['delay']})" if cell["success"] is None else f"{cell['success'][0]:.2f} ({cell['delay']})"
    )


def _interval(success: Sequence[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*success)
