"""``python -m eval.images preset=quick``: caching on an image model, in one table and one picture."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch

from eval.config import CONFIGS, log_to_terminal
from eval.images.data import load
from eval.images.experiment import Gallery, Row, rows_of
from eval.images.features import load_classifier
from eval.images.methods import Product
from eval.images.model import load_pipeline
from eval.images.report import AIM_SHARE, Strip, draw_sheet, first_of_each, table, verdict
from eval.images.sampling import Method, sample
from eval.provenance import provenance

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="images")
def main(config: Any) -> None:
    """Measure a preset, print its table and write rows, table and sheet."""
    log_to_terminal()
    torch.set_num_threads(1)
    preset = config.presets[config.preset]
    pipe = load_pipeline()
    gallery = Gallery(pipe, load_classifier(), load()[0], count=preset.num_images, seeds=preset.seeds)
    rows = rows_of(gallery, preset)
    lines = [*verdict(rows), "", *table(rows)]
    print("\n".join(lines))
    if config.output:
        folder = Path(config.output)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"provenance": provenance(), "num_images": preset.num_images, "rows": [asdict(row) for row in rows]}
        (folder / "rows.json").write_text(json.dumps(record, indent=1) + "\n")
        (folder / "table.md").write_text("\n".join(lines) + "\n")
        _sheet(pipe, preset, rows, folder / "sheet.png")


def _sheet(pipe: Any, preset: Any, rows: list[Row], path: Path) -> None:
    """Ten digits by the first solver at 20 % of the cells: uncached, uniform reuse, the best pair, fewer steps."""
    solver = preset.solvers[0]
    here = [row for row in rows if row.solver == solver and row.share == AIM_SHARE and row.rival_psnr is not None]
    best = max(here, key=lambda row: sum(row.psnr))
    product = Product(pipe, solver, preset.num_steps, preset.num_calibration)
    pairs = [("uniform", "hold"), (best.scheduler, best.estimator)]
    methods = [*product.methods(AIM_SHARE, pairs), Method("fewer steps", solver, best.rival_steps or preset.num_steps)]
    titles = ["uniform reuse, 20 %", f"{best.scheduler} + {best.estimator}, 20 %", f"{best.rival_steps} steps"]

    def strip(title: str, method: Method) -> Strip:
        return Strip(title, first_of_each(sample(pipe, method, 10, preset.seeds[0]).images))

    dense = strip(f"{solver}, {preset.num_steps} steps", product.dense)
    draw_sheet(dense, [strip(title, method) for title, method in zip(titles, methods, strict=True)], path)


if __name__ == "__main__":
    main()
