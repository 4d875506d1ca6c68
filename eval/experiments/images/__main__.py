"""``python -m eval.experiments.images preset=quick``: caching on an image model, in one table and one picture."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch

from eval.setup.config import CONFIGS, log_to_terminal
from eval.experiments.images.data import load
from eval.experiments.images.experiment import AIM_SHARE, Gallery, Shown, best_of, measure
from eval.experiments.images.features import load_classifier
from eval.experiments.images.methods import FEWER
from eval.experiments.images.model import load_transformer, make_loop
from eval.experiments.images.report import Strip, draw_sheet, first_of_each, table, verdict
from eval.setup.provenance import provenance

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="images")
def main(config: Any) -> None:
    """Measure a preset, print its table and write rows, table and sheet."""
    log_to_terminal()
    torch.set_num_threads(1)
    preset = config.presets[config.preset]
    loop = make_loop(load_transformer(), preset.num_steps)
    gallery = Gallery(loop, load_classifier(), load()[0], count=preset.num_images, seeds=preset.seeds)
    shown = measure(gallery, preset)
    rows = [its.row for its in shown]
    lines = [*verdict(rows), "", *table(rows)]
    print("\n".join(lines))
    if config.output:
        folder = Path(config.output)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"provenance": provenance(), "num_images": preset.num_images, "rows": [asdict(row) for row in rows]}
        (folder / "rows.json").write_text(json.dumps(record, indent=1) + "\n")
        (folder / "table.md").write_text("\n".join(lines) + "\n")
        for solver in preset.solvers:
            name = solver.lower().replace("++", "").replace("-", "_")
            _sheet([its for its in shown if its.row.solver == solver], folder / f"{name}.png")


def _sheet(shown: list[Shown], path: Path) -> None:
    """Ten digits of the first seed at 20 % of the cells: uncached, uniform reuse, the best pair, fewer steps."""
    dense = shown[0]
    best = best_of((its.row for its in shown), AIM_SHARE)
    wanted = {
        "uniform reuse, 20 %": lambda row: (row.share, row.scheduler, row.estimator) == (AIM_SHARE, "uniform", "hold"),
        f"{best.scheduler} + {best.estimator}, 20 %": lambda row: row == best,
        f"{best.rival_steps} steps": lambda row: (row.scheduler, row.num_steps) == (FEWER, best.rival_steps),
    }
    strips = [
        Strip(title, first_of_each(its.samples[0].images))
        for title, is_wanted in wanted.items()
        for its in shown
        if is_wanted(its.row)
    ]
    title = f"{dense.row.solver}, {dense.row.num_steps} steps"
    draw_sheet(Strip(title, first_of_each(dense.samples[0].images)), strips, path)


if __name__ == "__main__":
    main()
