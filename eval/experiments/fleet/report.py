"""The report of the fleet experiment: the table in words, the picture, and the design of a server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator

from bac.files import write_text
from eval.report.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, picture, plain_log_axis
from eval.setup.files import write_json

COLOURS = (GREY, BLACK, BLUE, ORANGE, GREEN)


def publish(table: Mapping[str, Any], folder: Path, source: Mapping[str, Any]) -> None:
    """Write ``table.json``, ``batched.png``, ``README.md`` and ``provenance.json``."""
    write_json(folder / "table.json", table)
    write_json(folder / "provenance.json", {**source, "latency": "one thread, float32, all methods interleaved"})
    draw(table, folder / "batched.png")
    write_text(folder / "README.md", readme(table, source))


def draw(table: Mapping[str, Any], path: Path) -> None:
    """Draw throughput against batch size, and robots against `control_hz`."""
    names = list(dict.fromkeys(row["method"] for row in table["latency"]))
    with picture(path, 1, 2, figsize=(10.4, 4.2)) as (figure, grid):
        left, right = grid[0]
        for name, colour in zip(names, COLOURS, strict=False):
            sizes = [row for row in table["latency"] if row["method"] == name]
            rates = [row for row in table["robots"] if row["method"] == name]
            batches, chunks = [row["batch"] for row in sizes], [row["chunks_per_s"] for row in sizes]
            left.plot(batches, chunks, color=colour, marker="o", ms=4, label=name)
            hertz = [row["control_hz"] for row in rates]
            right.plot(hertz, [row["saturated_robots"] or None for row in rates], color=colour, ls=":", lw=1)
            right.plot(hertz, [row["robots"] or None for row in rates], color=colour, marker="o", ms=4)
        _axis(left, "batch: robots served together", "chunks per second, at the median", "One thread of one server")
        left.set_xticks(batches)
        _axis(right, "control_hz: control steps per second [Hz]", "robots", "Robots fed; dotted: by throughput alone")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)


def _axis(axes: Any, x: str, y: str, title: str) -> None:
    plain_log_axis(axes)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.2)


def readme(table: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    return "\n".join([*_head(table, source), "", *_latencies(table), "", *_robots(table), "", *PLAN, ""])


def _head(table: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    samples = table["latency"][0]
    rejected = sum(row["num_rejected"] for row in table["latency"])
    total = sum(row["num_samples"] for row in table["latency"])
    clock = "CPU time" if samples["clock"] == "cpu" else "wall clock"
    return [
        "# One batched policy server for many robots",
        "",
        "The shipped Push-T policy (DP-T 8 x 128, K = 100, float32) on one thread of "
        f"{source['device']}, {source['date']}. Medians and 95th percentiles of {samples['num_samples']} interleaved",
        f"rounds, all methods and sizes in one process; {clock}, as other processes ran on the machine's "
        f"{source['cores']} cores",
        f"({rejected} of {total} samples met them).",
        "",
        f"    {source['command']}",
        "",
        "![Chunks per second by batch size, and robots by control rate](batched.png)",
    ]


def _latencies(table: Mapping[str, Any]) -> list[str]:
    sizes = list(dict.fromkeys(row["batch"] for row in table["latency"]))
    lines = [
        "## Latency of a batch, p50 / p95 [ms]",
        "",
        f"| method | {' | '.join(f'batch {size}' for size in sizes)} | most chunks/s |",
        "|---" * (len(sizes) + 2) + "|",
    ]
    for name in dict.fromkeys(row["method"] for row in table["latency"]):
        rows = [row for row in table["latency"] if row["method"] == name]
        cells = " | ".join(f"{row['p50_ms']:.0f} / {row['p95_ms']:.0f}" for row in rows)
        lines.append(f"| {name} | {cells} | {max(row['chunks_per_s'] for row in rows):.1f} |")
    return lines


def _robots(table: Mapping[str, Any]) -> list[str]:
    executed, usable = table["n_action_steps"], table["usable_actions"]
    rates = list(dict.fromkeys(row["control_hz"] for row in table["robots"]))
    lines = [
        "## Robots one server feeds",
        "",
        f"A robot executes {executed} actions of a chunk, so it needs one every {executed} / control_hz. By throughput "
        "alone that is",
        f"batch / latency x {executed} / control_hz robots, the first number: an upper limit, where "
        "nothing slow is caught up.",
        "The second counts the queue: robots ask at times of their own, every batch takes its p95 and is padded to the",
        f"next size measured, and none may wait longer than {usable - executed} control steps, when a chunk has just "
        f"{executed} of its {usable} actions left.",
        "In brackets the oldest observation that is then acted on, at a chunk's last action.",
        "",
        f"| method | {' | '.join(f'{rate:g} Hz' for rate in rates)} |",
        "|---" * (len(rates) + 1) + "|",
    ]
    for name in dict.fromkeys(row["method"] for row in table["robots"]):
        cells = " | ".join(_cell(row) for row in table["robots"] if row["method"] == name)
        lines.append(f"| {name} | {cells} |")
    return lines


def _cell(row: Mapping[str, Any]) -> str:
    age = f" ({row['oldest_observation_ms']:.0f} ms)" if row["robots"] else ""
    return f"{row['saturated_robots']} / **{row['robots']}**{age}"


PLAN = [
    "Feeding is not succeeding: how well each method does is in `results/pusht`, where the rival with few steps is",
    "nearer to dense than this BAC schedule, and on this task it is the cheaper one to serve as well.",
    "What a robot does with an observation that old is another question:",
    "`python -m eval.experiments.realtime policy=pusht` plays each method at its own latency. The ages above are",
    "those of a server at its limit; with fewer robots they come down to the latency of small batches.",
    "",
    "## Plan of the server (not built)",
    "",
    "- **Batching**: no window. Whenever the server is free it takes all that waits, up to the largest batch, oldest",
    "  first; the next batch gathers while it computes. A free server that waits w for company adds w to the age of",
    "  what comes back, and gains nothing that a busy one does not gain by itself.",
    "- **Sizes**: one plan per batch size (1, 2, 4, ... 32), recorded before the first robot connects; a batch is",
    "  padded to the next size. A static schedule does the same work for every row; an online rule that decides per",
    "  observation would split the batch.",
    "- **Worst age**: a robot that asks just after a batch has begun waits for that one and for its own, at most twice",
    "  the latency of the largest batch while no more wait than fit into one; the network is added once each way.",
    "- **Robots** ask a chunk ahead by that age and skip the actions whose time has passed (`bac.ControlLoop` does",
    "  both); an answer that does not come ends in the robot's safe action, never in an old chunk again.",
    "- **More cores**: one server process on each, with robots of its own: the rows of a batch do not need each other.",
    "",
    "## What a GPU would change (not measured)",
    "",
    "None was used here. At these sizes a GPU is bound by launches, not arithmetic, until batches are far larger than",
    "32: a batch of 32 should then take hardly longer than one, so the first number of the table would grow nearly as",
    "the batch, and BAC's gain would be that of fewer kernels per chunk (one CUDA graph for a whole chunk) until",
    "arithmetic takes over, and that of fewer FLOPs after. On this CPU arithmetic takes over much earlier: from",
    "batch 8 on chunks per second hardly grow (left panel).",
]
