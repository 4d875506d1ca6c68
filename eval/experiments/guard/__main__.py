"""``python -m eval.experiments.guard policy=pusht`` measures, prints and writes the table, and draws it."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch

from eval.experiments.guard.cost import cost_of
from eval.experiments.guard.experiment import GuardExperiment
from eval.experiments.guard.report import write
from eval.setup.config import CONFIGS, log_to_terminal

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="guard")
def main(config: Any) -> None:
    """Measure every shift, then the guard's cost."""
    log_to_terminal()
    torch.set_num_threads(1)
    experiment = GuardExperiment(config)
    logger.info("%s", experiment.guard)
    shifts = [asdict(shift) for shift in experiment.shifts()]
    cost = cost_of(experiment, config.latency_rounds) if config.latency_rounds else None
    folder = Path(config.results)
    write(folder, config.env.task, experiment.guard, shifts, cost)
    print((folder / "table.md").read_text(), json.dumps(cost, indent=1), f"\nWritten to {folder}")


if __name__ == "__main__":
    main()
