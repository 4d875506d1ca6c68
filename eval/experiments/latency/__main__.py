"""``python -m eval.experiments.latency preset=quick output=FILE.json`` writes JSON, a table and a figure."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

from eval.experiments.latency.experiment import records_of
from eval.experiments.latency.report import Record, write
from eval.setup.config import CONFIGS, log_to_terminal


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="latency")
def main(config: Any) -> None:
    """Measure a preset."""
    log_to_terminal()
    presets = OmegaConf.to_container(config.presets, resolve=True)
    if config.preset not in presets:
        raise SystemExit(f"preset: must be one of {', '.join(presets)}, got {config.preset}")
    torch.set_num_threads(1)
    gc.disable()  # plans are millions of small objects that stay alive; searching them for garbage takes seconds
    preset = presets[config.preset]

    def keep(records: Sequence[Record]) -> None:
        if config.output:
            write(records, Path(config.output), figure=preset["figure"])

    records_of(preset, keep)


if __name__ == "__main__":
    main()
