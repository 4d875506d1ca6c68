"""The pictures of a comparison: success against inference_hz, schedule, similarity, caching error, and sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb

import bac
from bac.caching.block import BlockKind
from bac.caching.calibration import Calibration
from eval.measure.intervals import Estimate
from eval.report.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    Label,
    key,
    picture,
    place_labels,
    plain_log_axis,
    reference_band,
)
from eval.setup.cells import Cell

KINDS = {
    BlockKind.SELF_ATTENTION: ("self-attention", BLUE),
    BlockKind.CROSS_ATTENTION: ("cross-attention", GREEN),
    BlockKind.FEED_FORWARD: ("feed-forward", ORANGE),
    BlockKind.LAYER: ("whole layer", PINK),
}
SHORT = dict(zip(KINDS, ("SA", "CA", "FFN", ""), strict=True))


@dataclass(frozen=True)
class Point:
    """The numbers of a cell that the pictures show.

    Attributes:
        cell: The cell.
        result: Success rate or score with its 95 % interval.
        inference_hz: Action chunks per second at batch 1 [Hz]; None if not measured.
        sweeps: Block updates / number of blocks.
    """

    cell: Cell
    result: Estimate
    inference_hz: float | None
    sweeps: float


def success_against_hz(path: Path, points: Sequence[Point], *, title: str, quantity: str) -> None:
    """Draw success (or score) against chunks per second. Few-step solvers are lines, caches are single points.

    Args:
        path: PNG to write.
        points: Dense reference first; points without latency are left out.
        title: Title of the picture.
        quantity: Name of the vertical axis.
    """
    shown = [point for point in points if point.inference_hz is not None]
    if not shown:
        return
    with picture(path, figsize=(8.2, 5.0)) as (_, grid):
        axes = grid[0, 0]
        result = shown[0].result
        reference_band(axes, result.value, result.low, result.high)
        for solver in ("DDPM", "DDIM", "DPM-Solver++"):
            line = [point for point in shown if _on_line(point.cell, solver)]
            line.sort(key=lambda point: point.inference_hz or 0.0)
            axes.plot(_hz(line), _values(line), color=_colour(line[0].cell) if line else BLACK, linewidth=1)
        for point in shown:
            bars = _bars([point])
            marker = "D" if point.cell.cache != "dense" else "o" if point.cell.is_dense else "^"
            axes.errorbar(
                _hz([point]), _values([point]), bars, color=_colour(point.cell), marker=marker, ms=5, elinewidth=0.7
            )
        plain_log_axis(axes)
        axes.set_xlabel("inference_hz: action chunks per second, batch 1, one CPU thread [Hz]")
        axes.set_ylabel(quantity)
        axes.set_ylim(-0.03, 1.08)
        axes.margins(x=0.12)
        axes.set_title(title)
        place_labels(axes, [_label(point, shown) for point in shown])


def schedule_grid(path: Path, blocks: Sequence[bac.Block], before: bac.Schedule, after: bac.Schedule) -> None:
    """Draw which block updates at which step. Updates that bubbling added are black.

    Args:
        path: PNG to write.
        blocks: Blocks in order of evaluation.
        before: Schedule of ACS alone.
        after: Schedule of ACS with BUA.
    """
    mask, added = after.mask.T, (after.mask & ~before.mask).T
    pixels = np.ones((*mask.shape, 3))
    for row, block in enumerate(blocks):
        pixels[row, mask[row]] = to_rgb(KINDS[block.kind][1])
        pixels[row, added[row]] = to_rgb(BLACK)
    with picture(path, figsize=(8.4, 0.17 * len(blocks) + 1.2)) as (_, grid):
        axes = grid[0, 0]
        axes.spines[:].set_visible(False)
        axes.pcolormesh(pixels[::-1], edgecolors="#E4E4E4", linewidth=0.4)
        labels = [_title(block, SHORT[block.kind]) for block in blocks]
        axes.set_yticks(np.arange(len(blocks)) + 0.5, labels[::-1], fontsize=7)
        axes.tick_params(length=0)
        axes.set_xlabel("denoising step (0 is the noisiest); right: updates of the block")
        for row, block in enumerate(blocks):
            place = (after.num_steps + 0.8, len(blocks) - row - 0.5)
            axes.text(*place, str(int(mask[row].sum())), va="center", fontsize=7, color=KINDS[block.kind][1])
        axes.set_title(f"{after.num_updates_total} of {mask.size} updates = {after.num_sweeps:.1f} sweeps")
        key(axes, [*(KINDS[kind] for kind in _kinds(blocks)), ("added by BUA", BLACK)])


def similarity_matrices(path: Path, calibration: Calibration, schedule: bac.Schedule) -> None:
    """Draw the similarity between steps for the first, middle and last layer. Dots are update steps."""
    layers = sorted({block.layer for block in calibration.blocks})
    layers = [layers[0], layers[len(layers) // 2], layers[-1]]
    kinds = _kinds(calibration.blocks)
    low = float(np.quantile(calibration.similarity, 0.01))
    size = {"figsize": (7.6, 7.4), "sharex": True, "sharey": True}
    with picture(path, len(kinds), len(layers), **size) as (figure, grid):
        for index, block in enumerate(calibration.blocks):
            if block.layer in layers:
                axes = grid[kinds.index(block.kind), layers.index(block.layer)]
                image = axes.imshow(calibration.similarity[index], vmin=low, vmax=1, cmap="cividis")
                steps = schedule.update_steps[block.name]
                axes.plot(steps, steps, ".", color="white", markersize=3)
                axes.set_title(_title(block, KINDS[block.kind][0]), fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("denoising step")
        for axes in grid[:, 0]:
            axes.set_ylabel("denoising step")
        bar = figure.colorbar(image, ax=grid, shrink=0.5, label="cosine similarity of a block's outputs")
        bar.outline.set_visible(False)


def caching_error_over_steps(path: Path, blocks: Sequence[bac.Block], errors: Mapping[str, np.ndarray]) -> None:
    """Draw each block's relative error over denoising steps, one panel per schedule.

    Args:
        path: PNG to write.
        blocks: Blocks in order of evaluation.
        errors: Title to mean |cached - dense| / mean |dense| of each block at each step, `[N, K]`.
    """
    kinds = _kinds(blocks)
    with picture(path, 1, len(errors), figsize=(8.4, 3.8), sharey=True) as (_, grid):
        for axes, (title, values) in zip(grid[0], errors.items(), strict=True):
            for kind in kinds:
                colour = KINDS[kind][1]
                rows = [row for row, block in enumerate(blocks) if block.kind == kind]
                axes.plot(values[rows].T, color=colour, linewidth=0.6, alpha=0.35)
                axes.plot(values[rows].mean(axis=0), color=colour, linewidth=2.2)
            axes.set_title(title)
            axes.set_xlabel("denoising step")
        grid[0, 0].set_ylabel("relative L1 error to dense\n(thick: mean over layers)")
        grid[0, 0].set_ylim(bottom=0)
        key(grid[0, -1], [KINDS[kind] for kind in kinds], y=0.94)


def sweep_lines(path: Path, points: Sequence[Point], *, title: str, quantity: str) -> None:
    """Draw success (or score) of BAC on DDPM-100 against its true cost, one line per number of bubbled blocks n.

    Args:
        path: PNG to write.
        points: Dense reference first; only ACS and BAC cells on DDPM without forced steps are drawn.
        title: Title of the picture.
        quantity: Name of the vertical axis.
    """
    reference = points[0].result
    shown = [p for p in points if p.cell.cache in ("acs", "bac") and p.cell.solver == "DDPM" and not p.cell.force_last]
    counts = sorted({point.cell.num_bubbled for point in shown})
    with picture(path, figsize=(7.6, 4.6)) as (_, grid):
        axes = grid[0, 0]
        reference_band(axes, reference.value, reference.low, reference.high)
        labels: list[Label] = []
        for count, colour in zip(counts, colormaps["cividis"](np.linspace(0, 0.85, len(counts))), strict=True):
            line = sorted((p for p in shown if p.cell.num_bubbled == count), key=lambda p: p.sweeps)
            x = [point.sweeps for point in line]
            axes.errorbar(x, _values(line), _bars(line), color=colour, marker="o", ms=4, elinewidth=0.7)
            for point in line[:-1]:
                labels.append(Label(point.sweeps, point.result.value, f"{point.cell.num_updates}", colour, 7.5))
            last = line[-1]
            labels.append(Label(last.sweeps, last.result.value, f"S = {last.cell.num_updates}, n = {count}", colour))
        axes.set_xlabel("sweeps: block updates in full evaluations (dense makes 100); at points: S")
        axes.set_ylabel(quantity)
        axes.set_ylim(-0.03, 1.08)
        axes.margins(x=0.1)
        axes.set_title(title)
        place_labels(axes, labels)


def _title(block: bac.Block, kind: str) -> str:
    """A block in words: its layer and its kind, or its name if it is a whole layer."""
    return block.name if block.kind == BlockKind.LAYER else f"layer {block.layer} {kind}"


def _kinds(blocks: Sequence[bac.Block]) -> list[BlockKind]:
    """The kinds of block that the policy has, in the order of `KINDS`."""
    return [kind for kind in KINDS if any(block.kind == kind for block in blocks)]


def _label(point: Point, points: Sequence[Point]) -> Label:
    """A cache is labelled by its name. On a solver's line, the fastest point has the name, others their steps."""
    cell, hz = point.cell, point.inference_hz or 0.0
    if not cell.is_dense:
        return Label(hz, point.result.value, cell.name, _colour(cell))
    line = [p for p in points if _on_line(p.cell, cell.solver)]
    if hz < max(_hz(line)):
        return Label(hz, point.result.value, f"{cell.num_steps}", _colour(cell), 7.5)
    return Label(hz, point.result.value, f"{cell.solver}, {cell.num_steps} steps", _colour(cell))


def _on_line(cell: Cell, solver: str) -> bool:
    """Whether a cell is on the line of a solver: dense with evenly spaced steps. Tuned steps are single points."""
    return cell.is_dense and cell.solver == solver


def _colour(cell: Cell) -> str:
    if cell.cache in ("acs", "bac"):
        return ORANGE
    if cell.cache in ("uniform", "unified"):
        return PINK
    if not cell.is_dense:
        return GREEN
    return {"DDPM": BLACK, "DDIM": BLUE}.get(cell.solver, GREEN)


def _hz(points: Sequence[Point]) -> list[float]:
    return [point.inference_hz or 0.0 for point in points]


def _values(points: Sequence[Point]) -> list[float]:
    return [point.result.value for point in points]


def _bars(points: Sequence[Point]) -> np.ndarray:
    """Lengths of error bars below and above, `[2, n]`."""
    results = [point.result for point in points]
    return np.array([[r.value - r.low for r in results], [r.high - r.value for r in results]])
