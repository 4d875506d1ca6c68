"""The result of tuning: the choice and all trials."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bac.denoising import Denoising
from bac.errors import BacError
from bac.files import drafted, write_json
from bac.tuning.budget import Budget
from bac.tuning.distance import Distance
from bac.tuning.machine import Machine

_NAME = 72  # characters of a name in the report


@dataclass(frozen=True)
class Trial:
    """One way to denoise, measured.

    Attributes:
        family: Its family: ``fewer steps, fitted multistep``, ``adaptive + bubbling``.
        denoising: The way to denoise.
        fit_error: Action error, or energy distance, on the fitting observations (see `bac.tuning.bench`).
        typical_error: Geometric mean of the action errors of each of these observations; the energy distance again.
        error: Action error, or energy distance, on held-out observations; None if it was not run on them.
        p50_s: Median latency [s]; predicted if `p95_s` is None.
        p95_s: 95th percentile of the latency [s]; None if it was not timed.
    """

    family: str
    denoising: Denoising
    fit_error: float
    typical_error: float
    error: float | None = None
    p50_s: float = 0.0
    p95_s: float | None = None

    @property
    def name(self) -> str:
        """Family and way to denoise, in one line of a table."""
        parts = [part for part in self.denoising.name.split(", ") if part not in self.family]
        return ", ".join([self.family, *parts])

    def __str__(self) -> str:
        held_out = "       -" if self.error is None else f"{self.error:8.4f}"
        late = "     -" if self.p95_s is None else f"{1e3 * self.p95_s:6.1f}"
        sweeps = f"{self.denoising.sweeps:5.1f} sweeps"
        errors = f"{self.typical_error:8.4f} {self.fit_error:8.4f} {held_out}"
        return f"{self.name:{_NAME}} {sweeps} {1e3 * self.p50_s:8.1f} {late} ms {errors}"


@dataclass(frozen=True)
class Tuned:
    """The chosen way to denoise, with all trials. It prints as a report.

    Attributes:
        chosen: The trial that meets the budget.
        trials: All trials in order of latency, `chosen` included.
        budget: The budget.
        machine: The cost model of this machine.
        quantity: What the errors are: ``action error``, or ``energy distance`` if the policy draws noise.
        deterministic: Distance of the deterministic path to such a policy.
    """

    chosen: Trial
    trials: tuple[Trial, ...]
    budget: Budget
    machine: Machine
    quantity: str = "action error"
    deterministic: Distance | None = None

    @property
    def denoising(self) -> Denoising:
        """The chosen way to denoise, for `bac.wrap` and ``tuned.denoising.save("bac.json")``."""
        return self.chosen.denoising

    @property
    def front(self) -> tuple[Trial, ...]:
        """Trials that no other beats in latency and error, in order of latency."""
        best: list[Trial] = []
        for trial in sorted(self.trials, key=lambda trial: (trial.p50_s, trial.typical_error)):
            if not best or trial.typical_error < best[-1].typical_error:
                best.append(trial)
        return tuple(best)

    def __str__(self) -> str:
        front = self.front
        marks = ["->" if trial is self.chosen else " *" if trial in front else "  " for trial in self.trials]
        head = f"   {'':{_NAME}} {'':12} {'p50':>8} {'p95':>6} {'':2} {'typical':>8} {'fit':>8} {'held out':>8}"
        lines = [f"{mark} {trial}" for mark, trial in zip(marks, self.trials, strict=True)]
        return "\n".join([str(self.budget), str(self.machine), head, *lines, *self._verdict()])

    def _verdict(self) -> list[str]:
        """The legend, and how far the choice is from the policy, in words."""
        lines = ["", f"->: the choice; *: no other way is faster and nearer; errors: {self.quantity}"]
        if self.deterministic is not None:
            lines.append(f"deterministic path at all timesteps: energy distance {self.deterministic}")
        measured = self.denoising.measured
        if measured is not None:
            lines.append(f"choice: {measured}")
            lines += [f"WARNING: {measured.warning}"] if measured.warning else []
        return lines

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, latencies in seconds. `tuned.denoising.save` writes the choice alone."""
        rows = [_plain(trial) for trial in self.trials]
        parts: dict[str, Any] = {
            "budget": asdict(self.budget),
            "machine": asdict(self.machine),
            "chosen": _plain(self.chosen),
        }
        path_of = None if self.deterministic is None else asdict(self.deterministic)
        parts |= {"quantity": self.quantity, "deterministic": path_of}
        write_json(path, {**parts, "rows": rows})

    def plot(self, path: str | Path) -> None:
        """Plot error against latency, with the front and the choice.

        Raises:
            BacError: matplotlib is not installed.
        """
        draw(self, path)


def draw(tuned: Tuned, path: str | Path) -> None:
    """See `Tuned.plot`."""
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise BacError("plot: needs matplotlib; pip install matplotlib, or print(tuned)") from error
    is_signed = tuned.quantity != "action error"  # an unbiased distance may be below zero, where a logarithm ends
    figure = figures.Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()

    def drawable(trial: Trial) -> bool:
        return is_signed or trial.fit_error > 0

    for family in dict.fromkeys(trial.family for trial in tuned.trials):
        its = [trial for trial in tuned.trials if trial.family == family and drawable(trial)]
        points = [1e3 * trial.p50_s for trial in its], [trial.typical_error for trial in its]
        axes.plot(*points, "o", ms=4, label=family)
    front = [trial for trial in tuned.front if drawable(trial)]
    line = [1e3 * trial.p50_s for trial in front], [trial.typical_error for trial in front]
    axes.plot(*line, color="0.6", lw=1, zorder=0)
    chosen = tuned.chosen
    axes.plot(1e3 * chosen.p50_s, chosen.typical_error, "o", ms=13, mfc="none", mec="black", label="chosen")
    if tuned.budget.latency_s is not None:
        axes.axvline(1e3 * tuned.budget.limit_s, color="0.4", ls=":", label="budget")
    quantity, scale = (tuned.quantity, "linear") if is_signed else ("action error, typical", "log")
    axes.set(xscale="log", yscale=scale, xlabel="latency of a chunk, p50 [ms]", ylabel=quantity)
    axes.set_title(tuned.budget.asked, fontsize=10)
    axes.legend(fontsize=7, frameon=False)
    with drafted(path) as draft:
        figure.savefig(draft, dpi=130)


def _plain(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "family": trial.family,
        "denoising": trial.denoising.to_document(),
        "sweeps": trial.denoising.sweeps,
        "typical_error": trial.typical_error,
        "fit_error": trial.fit_error,
        "held_out_error": trial.error,
        "p50_s": trial.p50_s,
        "p95_s": trial.p95_s,
    }
