"""Which measurement on recorded observations foretells the loss in closed loop, over all policies that have a table?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from eval.experiments.reference.rows import GROUPS
from eval.report.drawing import BLUE, GREEN, GREY, ORANGE, PINK, picture

Row = Mapping[str, Any]
COLOURS = dict(zip(GROUPS, (GREY, BLUE, ORANGE, GREEN, PINK), strict=True))
INSTRUMENTS: dict[str, Callable[[Row], float]] = {
    "energy distance": lambda row: row["energy"][0],
    "mean shift": lambda row: row["shift"],
    "spread ratio off 1": lambda row: abs(row["spread"] - 1),
    "jump at seams": lambda row: row["seam"],
    "error to the deterministic path": lambda row: row["path_error"],
}
_MARKERS = "osD^vP*X"


def correlations(tables: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float | None]]:
    """Spearman's rank correlation of each instrument with the loss: of every policy, their mean, and over all rows.

    Policies differ in the scale of their distances, so the mean of the policies says more than all rows together.

    Args:
        tables: Rows by policy. The policy's own row is left out: its loss is zero by definition.

    Returns:
        By instrument: a correlation for every policy, None if all its rows lose the same; ``mean`` and ``all``.
    """
    found: dict[str, dict[str, float | None]] = {}
    for name, instrument in INSTRUMENTS.items():
        by_policy = {policy: _rank(table[1:], instrument) for policy, table in tables.items()}
        known = [value for value in by_policy.values() if value is not None]
        pooled = [row for table in tables.values() for row in table[1:]]
        mean = float(np.mean(known)) if known else None
        found[name] = {**by_policy, "mean": mean, "all": _rank(pooled, instrument)}
    return found


@dataclass(frozen=True)
class Warned:
    """How often the warning of `bac.tune` was right, over the rows of one policy.

    A way is warned of if the interval of its energy distance lies above that of the policy to itself. It loses if the
    interval of its paired difference lies below zero.

    Attributes:
        rightly: Names of ways that were warned of, and lose.
        in_vain: Names of ways that were warned of, and are not shown to lose.
        missed: Names of ways that lose without a warning.
        calm: Number of the other ways.
    """

    rightly: tuple[str, ...]
    in_vain: tuple[str, ...]
    missed: tuple[str, ...]
    calm: int


def warned(table: Sequence[Row]) -> Warned:
    """Hold the warning of `bac.tune` against what was played; the policy's own row comes first."""
    floor = table[0]["energy"][2]
    by_outcome: dict[tuple[bool, bool], list[str]] = {}
    for row in table[1:]:
        outcome = row["energy"][1] > floor, row["difference"][2] < 0
        by_outcome.setdefault(outcome, []).append(row["name"])
    rightly, in_vain, missed = (tuple(by_outcome.get(o, ())) for o in ((True, True), (True, False), (False, True)))
    return Warned(rightly, in_vain, missed, len(by_outcome.get((False, False), ())))


def draw_instruments(path: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Draw the loss against every instrument, one point for each row of each policy."""
    found = correlations(tables)
    with picture(path, 1, len(INSTRUMENTS), figsize=(3.1 * len(INSTRUMENTS), 3.6), sharey=True) as (figure, grid):
        for axes, (name, instrument) in zip(grid[0], INSTRUMENTS.items(), strict=True):
            for marker, table in zip(_MARKERS, tables.values(), strict=False):
                for row in table[1:]:
                    axes.plot(
                        instrument(row), -row["difference"][0], marker, ms=4, color=COLOURS[row["group"]], alpha=0.8
                    )
            axes.axhline(0, color=GREY, lw=0.6)
            axes.set(xlabel=name, title=f"rank correlation {found[name]['mean']:.2f}")
        grid[0, 0].set_ylabel("loss of success or score")
        points = [
            Line2D([], [], ls="", marker=m, color="#444444", label=p) for m, p in zip(_MARKERS, tables, strict=False)
        ]
        groups = [Line2D([], [], ls="", marker="o", color=colour, label=name) for name, colour in COLOURS.items()]
        figure.legend(handles=points + groups, loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)


def _rank(table: Sequence[Row], instrument: Callable[[Row], float]) -> float | None:
    losses = [-row["difference"][0] for row in table]
    if len(set(losses)) < 2:
        return None
    return float(spearmanr([instrument(row) for row in table], losses).statistic)
