"""The report of a tuning: a table of all trials with its legend, and a picture of error against latency."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from bac.errors import BacError
from bac.files import drafted
from bac.tuning.budget import Budget
from bac.tuning.reference import ReferenceName
from bac.tuning.trial import Trial, distinct_names

CLIFF = 3.0  # times the error, by one step less, from which on the report warns


def table(
    trials: Sequence[Trial],
    chosen: Trial,
    front: Collection[Trial],
    dense_s: float | None,
    quantity: str,
    reference: ReferenceName,
) -> Iterator[str]:
    """Lines of the table and its legend.

    Args:
        trials: In the order of the table.
        chosen: The choice.
        front: Trials that no other beats in latency and error.
        dense_s: Latency of the policy as it is [s]; None if unknown.
        quantity: What the errors are.
        reference: What errors of a flow-matching policy are to; `Trial.other_error` is to the other one.
    """
    has_other = any(trial.other_error is not None for trial in trials)
    other = "flow" if reference == "own" else "own"
    names = distinct_names(trials)
    width = max(map(len, names))
    title = f" {f'to {other}':>8}" if has_other else ""
    numbers = f"{'NFE':>4} {'sweeps':>6} {'p50':>9} {'p95':>7} {'Hz':>7} {'faster':>7}"
    yield f"   {'':{width}} {numbers} {'typical':>8} {'fit':>8} {'held out':>8}{title}"
    for trial, name in zip(trials, names, strict=True):
        mark = "->" if trial is chosen else " *" if trial in front else "  "
        yield f"{mark} {name:{width}} {_cost(trial, dense_s)} {_errors(trial, has_other)}"
    yield ""
    yield "->: the choice; *: no other way is faster and nearer; ~: expected, not timed"
    yield "NFE: evaluations of the denoiser; sweeps: updates of all its blocks; p50, p95: latency of a chunk [ms];"
    yield "Hz: chunks per second at the median; faster: than the policy as it is (dense), as many times"
    yield f"errors: {quantity}; typical: geometric mean over the fitting observations (chooses); fit: all of them"
    meaning = {"own": "the policy's own steps", "flow": "a fine run of the flow"}[other]
    yield "together; held out: other observations" + (f"; to {other}: to {meaning}, fit" if has_other else "")


def _cost(trial: Trial, dense_s: float | None) -> str:
    known = " " if trial.p95_s is not None else "~"
    late = "-" if trial.p95_s is None else f"{1e3 * trial.p95_s:.1f}"
    rate, ratio = (f"{n / trial.p50_s:.1f}" if n and trial.p50_s else "-" for n in (1.0, dense_s))
    times = ratio if ratio == "-" else f"{ratio}x"
    evaluations = trial.denoising.num_evaluations
    median = f"{known}{1e3 * trial.p50_s:.1f}"
    return f"{evaluations or '-':>4} {trial.denoising.sweeps or 0:6.1f} {median:>9} {late:>7} {rate:>7} {times:>7}"


def _errors(trial: Trial, has_other: bool) -> str:
    held_out, other = ("-" if error is None else f"{error:.4f}" for error in (trial.error, trial.other_error))
    return f"{trial.typical_error:8.4f} {trial.fit_error:8.4f} {held_out:>8}" + (f" {other:>8}" if has_other else "")


def steps_around(chosen: Trial, neighbours: Sequence[Trial], own: float = 0.0) -> Iterator[str]:
    """Lines that compare the choice with one step less and one step more of its family, and name a cliff.

    Args:
        own: Typical error of the policy's own steps to the flow. What is smaller is no cliff: the policy itself is as
            far from what it was trained to do.
    """
    if not neighbours:
        return
    row = sorted((*neighbours, chosen), key=_steps)
    parts = (f"{_steps(t)} steps {t.typical_error:.4f}{' (the choice)' if t is chosen else ''}" for t in row)
    yield f"errors around the choice: {', '.join(parts)}"
    less = next((trial for trial in row if _steps(trial) == _steps(chosen) - 1), None)
    if less is not None and less.typical_error > max(CLIFF * chosen.typical_error, own):
        yield (
            f"WARNING: the choice stands next to a cliff: with one step less the error is "
            f"{less.typical_error / chosen.typical_error:.1f} times as large. Play episodes before you rely on it"
        )


def _steps(trial: Trial) -> int:
    return trial.denoising.num_evaluations or 0


def draw(
    path: str | Path, trials: Sequence[Trial], chosen: Trial, front: Sequence[Trial], budget: Budget, quantity: str
) -> None:
    """Draw error against latency, with the front and the choice.

    Raises:
        BacError: matplotlib is not installed.
    """
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise BacError("plot: needs matplotlib; pip install matplotlib, or print(tuned)") from error
    is_signed = quantity != "action error"  # an unbiased distance may be below zero, where a logarithm ends
    drawable = [trial for trial in trials if is_signed or trial.fit_error > 0]
    figure = figures.Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for family in dict.fromkeys(trial.family for trial in drawable):
        axes.plot(*_points([trial for trial in drawable if trial.family == family]), "o", ms=4, label=family)
    axes.plot(*_points([trial for trial in front if trial in drawable]), color="0.6", lw=1, zorder=0)
    axes.plot(*_points([chosen]), "o", ms=13, mfc="none", mec="black", label="chosen")
    if budget.latency_s is not None:
        axes.axvline(1e3 * budget.limit_s, color="0.4", ls=":", label="budget")
    label, scale = (quantity, "linear") if is_signed else ("action error, typical", "log")
    axes.set(xscale="log", yscale=scale, xlabel="latency of a chunk, p50 [ms]", ylabel=label)
    axes.set_title(budget.asked, fontsize=10)
    axes.legend(fontsize=7, frameon=False)
    with drafted(path) as draft:
        figure.savefig(draft, dpi=130)


def _points(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [1e3 * trial.p50_s for trial in trials], [trial.typical_error for trial in trials]
