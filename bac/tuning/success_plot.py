"""Draws what ways to denoise do to success, against the chunks that a second has."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bac.errors import BacError
from bac.files import drafted
from bac.tuning.intervals import Estimate


@dataclass(frozen=True)
class Point:
    """A way to denoise.

    Attributes:
        name: In words.
        latency_s: Of a chunk [s].
        value: Success rate or mean score.
        line: Points of the same line are joined; those without a name stand alone.
    """

    name: str
    latency_s: float
    value: Estimate
    line: str = ""


def draw(path: str | Path, points: Sequence[Point], quantity: str, num_episodes: int) -> None:
    """Draw one point with its interval for each way.

    Raises:
        BacError: matplotlib is not installed.
    """
    try:
        figures, tickers = (importlib.import_module(f"matplotlib.{name}") for name in ("figure", "ticker"))
    except ImportError as error:
        raise BacError("plot: needs matplotlib; pip install matplotlib, or print the comparison") from error
    figure = figures.Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for line in dict.fromkeys(point.line for point in points if point.line):
        joined = sorted((point for point in points if point.line == line), key=lambda point: point.latency_s)
        axes.plot(*_places(joined), color="0.7", lw=1, zorder=0)
    for point in points:
        (x,), (y,) = _places([point])
        arms = [[y - point.value.low], [point.value.high - y]]
        axes.errorbar([x], [y], yerr=arms, fmt="s" if point.line else "o", ms=5, capsize=2, label=point.name)
    axes.set(xscale="log", xlabel="chunks per second", ylabel=f"{quantity}, 95 % interval", ylim=(-0.02, 1.02))
    axes.xaxis.set_major_locator(tickers.LogLocator(subs=(1, 2, 5), numticks=30))
    axes.xaxis.set_major_formatter(tickers.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(tickers.NullFormatter())
    axes.set_title(f"{num_episodes} episodes; squares: fewer of the policy's own steps", fontsize=10)
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    with drafted(path) as draft:
        figure.savefig(draft, dpi=130)


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [1 / point.latency_s for point in points], [point.value.value for point in points]
