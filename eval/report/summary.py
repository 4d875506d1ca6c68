"""The short table of README.md, from the tables of all tasks: ``python -m eval.report.summary``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.setup.cells import SPACINGS

RESULTS = Path(__file__).parents[2] / "results"
TASKS = {
    "assembly-v3": "assembly-v3: success",
    "pick-out-of-hole-v3": "pick-out-of-hole-v3: success",
    "pusht": "Push-T: score, minus dense",
}
BY_SCORE = "pusht"
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of the summary: a method, which has a row in every table.

    Attributes:
        name: Name of the row, without a timestep spacing; with `bought`, name of a solver.
        bought: Take the solver with as many steps as BAC's latency buys, its first row with fewer than 100 sweeps.
    """

    name: str
    bought: bool = False

    def row(self, task: str, rows: Sequence[Row]) -> Row:
        """The method's row.

        Raises:
            ValueError: The table lacks the method.
        """
        names = {self.name, *(f"{self.name} {spacing}" for spacing in SPACINGS)}
        for row in rows:
            if row["name"].startswith(f"{self.name}-") and row["sweeps"] < 100 if self.bought else row["name"] in names:
                return row
        raise ValueError(
            f"results/{task}/table.json: has no row of {self.name}; make the table with it: python -m eval.compare "
            "tuned=fitted_4.json 'few_steps=[2,4,8]' 'sweep.updates=[20,30]' 'sweep.bubbled=[5,24]' policy=..."
        )


LINES = {
    "dense: DDPM-100": Line("DDPM-100"),
    "BAC as published: S = 10, n = 5": Line("BAC S=10 n=5"),
    "BAC, S = 20, n = 5": Line("BAC S=20 n=5"),
    "rival: DDIM, the steps that BAC's latency buys": Line("DDIM", bought=True),
    "rival: DDIM-4": Line("DDIM-4"),
    "**four fitted steps**, searched timesteps": Line("fitted multistep-4"),
}


def summary(tables: Mapping[str, Sequence[Row]]) -> str:
    """The summary in Markdown: a line for each method, two columns for each task.

    Args:
        tables: ``table.json`` of each of `TASKS`.

    Raises:
        ValueError: A table lacks a method.
    """
    head = "| method | " + " | ".join(f"{title} [95 %] | x" for title in TASKS.values()) + " |"
    lines = [head, "|---|" + "---|---:|" * len(TASKS)]
    for label, line in LINES.items():
        cells = []
        for task in TASKS:
            row = line.row(task, tables[task])
            steps = f" (K = {row['sweeps']:.0f})" if line.bought else ""
            cells += [(_score(row) if task == BY_SCORE else _success(row)) + steps, f"{row['speedup']:.1f}"]
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines)


def load(results: Path = RESULTS) -> dict[str, Sequence[Row]]:
    """Read every task's table."""
    return {task: json.loads((results / task / "table.json").read_text()) for task in TASKS}


def _success(row: Row) -> str:
    return f"{short(row['success'])} [{short(row['success_low'])}, {short(row['success_high'])}]"


def _score(row: Row) -> str:
    if row["paired_diff"] is None:
        return short(row["score"])
    low, difference, high = (
        f"{row[key]:+.3f}".replace("0.", ".") for key in ("paired_low", "paired_diff", "paired_high")
    )
    return f"{short(row['score'])}, {difference} [{low}, {high}]"


def short(value: float) -> str:
    """A rate to three places, without the zero in front."""
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1.000"


if __name__ == "__main__":
    print(summary(load()))
