"""The short table of README.md, from the tables of all tasks: ``python -m eval.summary``."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.cells import SPACINGS

RESULTS = Path(__file__).parents[1] / "results"
TASKS = {
    "assembly-v3": "assembly-v3: success",
    "pick-out-of-hole-v3": "pick-out-of-hole-v3: success",
    "pusht": "Push-T: score, minus dense",
}
BY_SCORE = "pusht"
Row = dict[str, Any]
Pick = Callable[[Sequence[Row]], Row]


def named(name: str) -> Pick:
    """The row of that name; few-step solvers without their timestep spacing."""
    names = {name, *(f"{name} {spacing}" for spacing in SPACINGS)}
    return lambda rows: next(row for row in rows if row["name"] in names)


def bought(solver: str) -> Pick:
    """The solver with as many steps as BAC's latency buys: its first row with fewer steps."""
    return lambda rows: next(row for row in rows if row["name"].startswith(f"{solver}-") and row["sweeps"] < 100)


LINES: dict[str, Pick] = {
    "dense: DDPM-100": named("DDPM-100"),
    "BAC as published: S = 10, n = 5": named("BAC S=10 n=5"),
    "the same, all blocks fresh at the last 3 steps": named("BAC S=10 n=5, last 3 forced"),
    "the same on DDIM-100": named("BAC S=10 n=5 on DDIM-100"),
    "BAC, S = 20, n = 5": named("BAC S=20 n=5"),
    "rival: DDIM, the steps that BAC's latency buys": bought("DDIM"),
    "rival: DPM-Solver++, likewise": bought("DPM-Solver++"),
    "rival: DDIM-4": named("DDIM-4"),
    "rival: DPM-Solver++-4": named("DPM-Solver++-4"),
    "**fitted multistep, 4 steps** (`bac.tune`)": named("fitted multistep-4"),
}


def summary(tables: dict[str, Sequence[Row]]) -> str:
    """A line for each method, two columns for each task.

    Args:
        tables: ``table.json`` of each of `TASKS`.

    Raises:
        StopIteration: A table lacks a method.
    """
    head = "| method | " + " | ".join(f"{title} [95 %] | x" for title in TASKS.values()) + " |"
    lines = [head, "|---|" + "---|---:|" * len(TASKS)]
    for label, pick in LINES.items():
        cells = []
        for task in TASKS:
            row = pick(tables[task])
            steps = f" (K = {row['sweeps']:.0f})" if "rival" in label and not label.endswith("4") else ""
            cells += [(_score(row) if task == BY_SCORE else _success(row)) + steps, f"{row['speedup']:.1f}"]
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines)


def load(results: Path = RESULTS) -> dict[str, Sequence[Row]]:
    """Every task's table."""
    return {task: json.loads((results / task / "table.json").read_text()) for task in TASKS}


def _success(row: Row) -> str:
    return f"{_short(row['success'])} [{_short(row['success_low'])}, {_short(row['success_high'])}]"


def _score(row: Row) -> str:
    if row["paired_diff"] is None:
        return _short(row["score"])
    low, difference, high = (
        f"{row[key]:+.3f}".replace("0.", ".") for key in ("paired_low", "paired_diff", "paired_high")
    )
    return f"{_short(row['score'])}, {difference} [{low}, {high}]"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1.000"


if __name__ == "__main__":
    print(summary(load()))
