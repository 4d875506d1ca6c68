"""What tuning found, and everything it looked at."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bac.errors import BacError
from bac.schedule import Schedule
from bac.tuning.budget import Budget
from bac.tuning.candidate import Candidate
from bac.tuning.machine import Machine
from bac.tuning.multistep import Multistep
from bac.tuning.solver import Undo
from bac.tuning.stored import save


@dataclass(frozen=True)
class Row:
    """One candidate, measured.

    Attributes:
        candidate: What was run.
        fit_error: Action error on the observations it was chosen with (see `bac.tuning.bench`).
        typical_error: Geometric mean of each of these observations' own action error.
        error: Action error on others; None if it was not run on them.
        p50_s: Median latency [s], predicted where `p95_s` is None.
        p95_s: 95th percentile [s]; None if it was not timed.
    """

    candidate: Candidate
    fit_error: float
    typical_error: float
    error: float | None = None
    p50_s: float = 0.0
    p95_s: float | None = None

    def __str__(self) -> str:
        held_out = "       -" if self.error is None else f"{self.error:8.4f}"
        late = "     -" if self.p95_s is None else f"{1e3 * self.p95_s:6.1f}"
        sweeps = f"{self.candidate.sweeps:5.1f} sweeps"
        errors = f"{self.typical_error:8.4f} {self.fit_error:8.4f} {held_out}"
        return f"{self.candidate.name:52} {sweeps} {1e3 * self.p50_s:8.1f} {late} ms {errors}"


@dataclass(frozen=True)
class Tuned:
    """The chosen way to denoise. Printed, it is its report.

    Attributes:
        chosen: The row that meets the budget.
        rows: All candidates, in order of latency; `chosen` is one of them.
        budget: What was asked.
        machine: What a chunk costs here.
    """

    chosen: Row
    rows: tuple[Row, ...]
    budget: Budget
    machine: Machine

    @property
    def schedule(self) -> Schedule | None:
        """For `bac.wrap`, `save`; None if every block is computed: fewer steps were the better choice."""
        return self.chosen.candidate.schedule

    def apply(self, policy: Any, **options: Any) -> Undo:
        """Put a policy to the chosen solver and steps, and wrap it.

        Args:
            policy: The tuned one or another of the same weights, not wrapped.
            options: As for `bac.wrap`: `executor`, `guard`.

        Returns:
            A call that leaves the policy as it was. `bac.unwrap` takes the cache off and leaves the solver.
        """
        return self.chosen.candidate.put_on(policy, **options)

    @property
    def front(self) -> tuple[Row, ...]:
        """Rows that no other beats in latency and error, in order of latency."""
        best: list[Row] = []
        for row in sorted(self.rows, key=lambda row: (row.p50_s, row.typical_error)):
            if not best or row.typical_error < best[-1].typical_error:
                best.append(row)
        return tuple(best)

    def __str__(self) -> str:
        marks = ["->" if row is self.chosen else " *" if row in self.front else "  " for row in self.rows]
        head = f"   {'':52} {'':12} {'p50':>8} {'p95':>6} {'':2} {'typical':>8} {'fit':>8} {'held out':>8}"
        lines = [f"{mark} {row}" for mark, row in zip(marks, self.rows, strict=True)]
        return "\n".join([str(self.budget), str(self.machine), head, *lines])

    def save(self, path: str | Path) -> None:
        """Write the report as JSON: plain types, latencies in seconds."""
        rows = [_plain(row) for row in self.rows]
        parts = {"budget": asdict(self.budget), "machine": asdict(self.machine), "chosen": _plain(self.chosen)}
        Path(path).write_text(json.dumps({**parts, "rows": rows}, indent=1) + "\n")

    def save_choice(self, path: str | Path) -> None:
        """Write the choice alone, for `bac.tuning.load`.

        As ``bac.json`` beside its weights LeRobot's commands follow it.
        """
        save(self.chosen.candidate, path)

    def plot(self, path: str | Path) -> None:
        """Draw error against latency, the front and the choice.

        Raises:
            BacError: matplotlib is not installed.
        """
        draw(self, path)


def draw(tuned: Tuned, path: str | Path) -> None:
    """See `Tuned.plot`."""
    import importlib

    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise BacError("plot: needs matplotlib; pip install matplotlib, or print(tuned)") from error
    figure = figures.Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for method in dict.fromkeys(row.candidate.name.rsplit(",", 1)[0] for row in tuned.rows):
        its = [row for row in tuned.rows if row.candidate.name.rsplit(",", 1)[0] == method and row.fit_error > 0]
        axes.plot([1e3 * row.p50_s for row in its], [row.typical_error for row in its], "o", ms=4, label=method)
    front = [row for row in tuned.front if row.fit_error > 0]
    axes.plot([1e3 * row.p50_s for row in front], [row.typical_error for row in front], color="0.6", lw=1, zorder=0)
    chosen = tuned.chosen
    axes.plot(1e3 * chosen.p50_s, chosen.typical_error, "o", ms=13, mfc="none", mec="black", label="chosen")
    if tuned.budget.latency_s is not None:
        axes.axvline(1e3 * tuned.budget.limit_s, color="0.4", ls=":", label="budget")
    axes.set(xscale="log", yscale="log", xlabel="latency of a chunk, p50 [ms]", ylabel="action error, typical")
    axes.set_title(tuned.budget.asked, fontsize=10)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=130)


def _plain(row: Row) -> dict[str, Any]:
    candidate = row.candidate
    updates = None if candidate.schedule is None else {k: list(v) for k, v in candidate.schedule.update_steps.items()}
    return {
        "name": candidate.name,
        "num_steps": candidate.num_steps,
        "timesteps": list(candidate.timesteps),
        "update_steps": updates,
        "sweeps": candidate.sweeps,
        "weights": candidate.solver.weights if isinstance(candidate.solver, Multistep) else None,
        "typical_error": row.typical_error,
        "fit_error": row.fit_error,
        "held_out_error": row.error,
        "p50_s": row.p50_s,
        "p95_s": row.p95_s,
    }
