"""Shared parts of the figures: colours, a style, and direct labels that keep clear of each other.

The colours are Okabe and Ito's, which are distinguishable with every kind of colour vision. Names stand at the series.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.collections import LineCollection  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

from bac.files import drafted

BLUE, ORANGE, GREEN, PINK, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C", "#222222"
SKY, AMBER = "#56B4E9", "#E69F00"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": BLACK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
}


@contextmanager
def picture(path: Path, rows: int = 1, columns: int = 1, **options: Any):
    """Make a figure in our style, and write it to `path` (PNG) when the block ends.

    Yields:
        The figure and its grid of axes.
    """
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(rows, columns, squeeze=False, layout="constrained", **options)
        try:
            yield figure, grid
            path.parent.mkdir(parents=True, exist_ok=True)
            with drafted(path) as draft:
                figure.savefig(draft)
        finally:
            plt.close(figure)


@dataclass(frozen=True)
class Label:
    """Text that belongs to a point. `x` and `y` are data coordinates; `size` is in points."""

    x: float
    y: float
    text: str
    colour: Any
    size: float = 8.5


# Places of a label relative to its point [points], best first.
_PLACES = [
    (dx * reach, dy * reach, align)
    for reach in (1.0, 1.6, 2.4, 3.4, 4.6, 6.0, 8.0, 10.0)
    for dx, dy, align in (
        (6, 5, "left"),
        (6, -6, "left"),
        (-6, 5, "right"),
        (-6, -6, "right"),
        (0, 9, "center"),
        (0, -9, "center"),
        (8, 0, "left"),
        (-8, 0, "right"),
    )
]


def place_labels(axes: Any, labels: Sequence[Label]) -> None:
    """Write every label where it covers the fewest labels, lines, bars and points, and stays inside the axes.

    Long labels choose first. A label that has to move far from its point gets a thin line to it.
    """
    axes.figure.canvas.draw()
    renderer = axes.figure.canvas.get_renderer()
    inside = axes.get_window_extent()
    taken = [_box_around(axes.transData.transform((label.x, label.y)), 4) for label in labels]
    taken += [_box_around(point, 1.5) for line in axes.lines for point in _along(line)]
    taken += [_box_around(point, 1.5) for bars in axes.collections for point in _along_bars(bars)]
    for label in sorted(labels, key=lambda label: -len(label.text)):
        best_cost, best_place, best_box = float("inf"), _PLACES[0], inside
        for place in _PLACES:
            text = _write(axes, label, place)
            text.update_positions(renderer)
            box = Text.get_window_extent(text)  # without the leader
            text.remove()
            outside = _area(box) - _overlap(box, inside)
            cost = sum(_overlap(box, other) for other in taken) + 10 * outside
            if cost < best_cost:
                best_cost, best_place, best_box = cost, place, box
            if cost == 0:
                break
        _write(axes, label, best_place)
        taken.append(best_box)


def _write(axes: Any, label: Label, place: tuple[float, float, str]) -> Any:
    dx, dy, align = place
    leader = {"arrowstyle": "-", "color": label.colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 2}
    text = axes.annotate(
        label.text,
        (label.x, label.y),
        (dx, dy),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=label.size,
        color=label.colour,
        arrowprops=leader if abs(dx) + abs(dy) > 18 else None,
    )
    text.set_in_layout(False)  # otherwise the layout would move the axes under the labels
    return text


def _along(line: Any, spacing: float = 4.0) -> Iterator[np.ndarray]:
    """Yield points of a drawn line, every few pixels."""
    corners = line.get_transform().transform(np.column_stack(line.get_data(orig=False)))
    for start, end in zip(corners, corners[1:], strict=False):
        for part in np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / spacing))):
            yield start + part * (end - start)


def _along_bars(bars: Any) -> Iterator[np.ndarray]:
    """Yield points of error bars; other collections yield none."""
    if isinstance(bars, LineCollection):
        for path in bars.get_paths():
            ends = bars.get_transform().transform(path.vertices)
            yield from np.linspace(ends[0], ends[-1], 12)


def _box_around(point: np.ndarray, radius: float) -> Bbox:
    return Bbox.from_bounds(point[0] - radius, point[1] - radius, 2 * radius, 2 * radius)


def reference_band(axes: Any, value: float, low: float, high: float) -> None:
    """Draw the dense policy's result as a dashed line, and its interval as a band."""
    axes.axhspan(low, high, color=BLACK, alpha=0.06, linewidth=0)
    axes.axhline(value, color=BLACK, linewidth=0.8, linestyle=(0, (4, 3)))


def plain_log_axis(axes: Any, ticks: Sequence[float] = ()) -> None:
    """Make the x axis logarithmic with plain numbers: `ticks`, or numbers such as 2, 5, 10, 20."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def few_ticks(values: Sequence[float]) -> list[float]:
    """A few round numbers for a narrow range; none for a wide one, which has enough of its own."""
    round_numbers = (digit * 10.0**power for power in range(-2, 5) for digit in (1, 1.5, 2, 3, 5, 7))
    near = [number for number in round_numbers if 0.9 * min(values) <= number <= 1.1 * max(values)]
    return near if 2 <= len(near) <= 6 else []


def key(axes: Any, entries: Sequence[tuple[str, str]], *, y: float = 1.02) -> None:
    """Write names in a row above the axes, right-aligned, each in its colour."""
    x = 1.0
    for name, colour in reversed(entries):
        text = axes.text(x, y, name, color=colour, transform=axes.transAxes, ha="right", va="bottom", fontsize=9)
        axes.figure.canvas.draw()
        box = text.get_window_extent().transformed(axes.transAxes.inverted())
        x = box.x0 - 0.025


def _overlap(a: Bbox, b: Bbox) -> float:
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else _area(both)


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
