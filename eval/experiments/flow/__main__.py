"""``python -m eval.experiments.flow policy=pusht_flow n=200`` fits, measures, plays, times and writes one table."""

from pathlib import Path
from typing import Any

import hydra
import torch

from eval.compared.comparison import Comparison
from eval.experiments.flow.experiment import Flow
from eval.experiments.flow.report import markdown, publish
from eval.setup.config import CONFIGS, log_to_terminal, settings_of

SAVED = ("fitted-2", "fitted-2 to own", "fitted-3", "fitted-3 to own")  # as a bac.json each, for eval.certify


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Fit solvers, measure errors, play episodes, time the ways; write the table, its picture and the fits."""
    log_to_terminal()
    torch.set_num_threads(1)
    flow = Flow(Comparison(settings_of(config)), config.flow)
    phases = {"fit": flow.costs, "measure": flow.errors, "change": flow.changed, "play": flow.play}
    phases |= {"distance": flow.distances, "time": flow.latencies_ms}
    for name, phase in phases.items():
        phase()
        if config.flow.phase == name:
            return
    table = flow.table()
    parts = flow.changed(), flow.costs(), flow.latencies_ms(), flow.paired()
    publish(Path(config.flow.results), config.checkpoint, table, *parts)
    for cell in flow.cells:
        if cell.name in SAVED and cell.denoising is not None:
            cell.denoising.save(Path(config.flow.results) / f"{cell.name.replace(' ', '-')}.json")
    print("\n".join(markdown(table)))


if __name__ == "__main__":
    main()
