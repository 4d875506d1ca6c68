"""The report of the image experiment: a table, a verdict on the aim, and sheets of pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from torch import Tensor

from bac.files import write_text
from eval.experiments.images.experiment import AIM_SHARE, NONE, ImageRow, Shown, best_of
from eval.experiments.images.methods import FEWER
from eval.report.drawing import picture
from eval.setup.files import write_json
from eval.setup.provenance import provenance

AIM_UNIFORM_DB, AIM_STEPS_DB = 8.0, 10.0
_COLUMNS = (
    "solver | cells | when | instead | PSNR [dB] | where made | its steps' PSNR | FD uncached | FD real | accuracy | "
    "latency [ms] | speed-up"
)


def publish(folder: Path, shown: Sequence[Shown], *, num_images: int) -> None:
    """Write ``rows.json``, ``table.md`` and a sheet of each solver.

    Args:
        folder: Folder of the files; made if needed.
        shown: Every method with its pictures, solver by solver.
        num_images: Number of pictures per seed.
    """
    rows = [its.row for its in shown]
    record = {"provenance": provenance(), "num_images": num_images, "rows": [asdict(row) for row in rows]}
    write_json(folder / "rows.json", record)
    write_text(folder / "table.md", "\n".join(lines(rows)) + "\n")
    for solver in dict.fromkeys(row.solver for row in rows):
        name = solver.lower().replace("++", "").replace("-", "_")
        draw_methods([its for its in shown if its.row.solver == solver], folder / f"{name}.png")


def lines(rows: Sequence[ImageRow]) -> list[str]:
    """The lines of the verdict and the table."""
    return [*verdict(rows), "", *table(rows)]


def table(rows: Sequence[ImageRow]) -> Iterator[str]:
    """Yield the table's Markdown lines, the best method of each solver and share first."""
    yield f"| {_COLUMNS} |"
    yield "|" + "---|" * (_COLUMNS.count("|") + 1)
    for row in sorted(rows, key=lambda row: (row.solver, -row.share, -_mean_psnr(row))):
        fidelity = f"{_mean_psnr(row):.1f} ({min(row.psnr):.1f} to {max(row.psnr):.1f})" if row.psnr else "-"
        fitted = f"{row.fit_psnr:.1f}" if row.fit_psnr is not None else "-"
        rival = f"{row.rival_psnr:.1f} ({row.rival_steps} steps)" if row.rival_psnr is not None else "-"
        cells = f"{row.cells:.0%}" if row.is_cached else f"{row.num_steps} steps"
        instead = row.estimator if row.estimator != NONE else "-"
        which = f"{row.solver} | {cells} | {row.scheduler} | {instead}"
        judged = f"{row.frechet_dense:.2f} | {row.frechet_real:.2f} | {row.accuracy:.3f}"
        cost = f"{row.latency_ms:.0f} | {row.speedup:.2f}"
        yield f"| {which} | {fidelity} | {fitted} | {rival} | {judged} | {cost} |"


def verdict(rows: Sequence[ImageRow]) -> Iterator[str]:
    """Yield one sentence per solver: how its best method at 20 % of the cells does on pictures it was not chosen on."""
    for solver in dict.fromkeys(row.solver for row in rows):
        here = [row for row in rows if row.solver == solver and row.share == AIM_SHARE and row.is_cached]
        uniform = next((row for row in here if (row.scheduler, row.estimator) == ("uniform", "hold")), None)
        if uniform is None:
            continue
        best = best_of(here, AIM_SHARE)
        gains = [one - other for one, other in zip(best.psnr, uniform.psnr, strict=True)]
        over_steps = _mean_psnr(best) - (best.rival_psnr or 0.0)
        met = min(gains) >= AIM_UNIFORM_DB and over_steps >= AIM_STEPS_DB
        yield (
            f"{solver} at {AIM_SHARE:.0%} of the cells: {best.scheduler} + {best.estimator} is {min(gains):+.1f} to "
            f"{max(gains):+.1f} dB over uniform reuse on {len(gains)} seeds (aim {AIM_UNIFORM_DB:+.0f}) and "
            f"{over_steps:+.1f} dB over {best.rival_steps} dense steps, which take as long (aim {AIM_STEPS_DB:+.0f}): "
            f"{'met' if met else 'not met'}."
        )


class Strip(NamedTuple):
    """One picture of each digit.

    Attributes:
        title: Name of the method.
        images: Pictures, `[10, 1, 8, 8]`, in [-1, 1].
    """

    title: str
    images: Tensor


def draw_sheet(dense: Strip, others: Sequence[Strip], path: Path) -> None:
    """Draw the uncached pictures, then every other method's pictures and their difference to the uncached ones."""
    count = len(dense.images)
    strips = [(dense.title, dense.images[:, 0], "gray_r", (-1, 1))]
    for other in others:
        difference = (other.images - dense.images)[:, 0]
        strips.append((other.title, other.images[:, 0], "gray_r", (-1, 1)))
        strips.append(("difference", difference, "RdBu", (-1, 1)))
    size = (0.75 * count + 2.2, 0.8 * len(strips))
    with picture(path, len(strips), count, figsize=size) as (_, grid):
        for axes, (title, images, colours, (low, high)) in zip(grid, strips, strict=True):
            for axis, image in zip(axes, images, strict=True):
                axis.imshow(image.clamp(low, high).numpy(), cmap=colours, vmin=low, vmax=high)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            axes[0].set_ylabel(title, rotation=0, ha="right", va="center")


def draw_methods(shown: Sequence[Shown], path: Path) -> None:
    """Draw ten digits of the first seed at 20 % of the cells: uncached, uniform reuse, best pair, fewer steps."""
    dense = shown[0]
    best = best_of((its.row for its in shown), AIM_SHARE)
    wanted = {
        "uniform reuse, 20 %": lambda row: (row.share, row.scheduler, row.estimator) == (AIM_SHARE, "uniform", "hold"),
        f"{best.scheduler} + {best.estimator}, 20 %": lambda row: row == best,
        f"{best.rival_steps} steps": lambda row: (row.scheduler, row.num_steps) == (FEWER, best.rival_steps),
    }
    strips = [_strip(title, its) for title, is_wanted in wanted.items() for its in shown if is_wanted(its.row)]
    draw_sheet(_strip(f"{dense.row.solver}, {dense.row.num_steps} steps", dense), strips, path)


def _strip(title: str, shown: Shown) -> Strip:
    """The first ten pictures, which show all digits in order."""
    return Strip(title, shown.samples[0].images[:10])


def _mean_psnr(row: ImageRow) -> float:
    return mean(row.psnr) if row.psnr else float("inf")
