"""``python -m eval.experiments.images preset=quick output=FOLDER`` writes the table of caching on an image model."""

from pathlib import Path
from typing import Any

import hydra
import torch

from eval.experiments.images.data import load
from eval.experiments.images.experiment import Gallery, measure
from eval.experiments.images.features import load_classifier
from eval.experiments.images.model import load_transformer, make_loop
from eval.experiments.images.report import lines, publish
from eval.setup.config import CONFIGS, log_to_terminal


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="images")
def main(config: Any) -> None:
    """Measure a preset, print its table, and write rows, table and sheets of pictures."""
    log_to_terminal()
    torch.set_num_threads(1)
    preset = config.presets[config.preset]
    loop = make_loop(load_transformer(), preset.num_steps)
    gallery = Gallery(loop, load_classifier(), load()[0], count=preset.num_images, seeds=preset.seeds)
    shown = measure(gallery, preset)
    print("\n".join(lines([its.row for its in shown])))
    if config.output:
        publish(Path(config.output), shown, num_images=preset.num_images)


if __name__ == "__main__":
    main()
