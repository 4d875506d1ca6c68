"""``python -m eval.experiments.reference policy=hammer n=200`` measures, plays, times and writes one policy's table."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch

from bac.files import write_text
from eval.compared.comparison import Comparison
from eval.experiments.reference.experiment import Reference
from eval.experiments.reference.instruments import correlations, draw_instruments, warned
from eval.experiments.reference.report import markdown, publish, side_by_side, stored
from eval.setup.config import CONFIGS, log_to_terminal, settings_of
from eval.setup.files import write_json


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Measure distances, play episodes, time the ways, write the table, and compare the instruments over all tables."""
    log_to_terminal()
    torch.set_num_threads(1)
    options, folder = config.reference, Path(config.reference.results)
    reference = Reference(Comparison(settings_of(config)), options)
    phases = {
        "measure": (reference.distances, reference.seams),
        "play": (reference.play,),
        "time": (reference.latencies_ms,),
    }
    for name, parts in phases.items():
        for part in parts:
            part()
        if options.phase == name:
            return
    table = reference.table()
    publish(folder, table)
    tables = stored(folder.parent)
    warnings = {policy: asdict(warned(table)) for policy, table in tables.items()}
    write_json(folder.parent / "instruments.json", {"correlation": correlations(tables), "warned": warnings})
    draw_instruments(folder.parent / "instruments.png", tables)
    write_text(folder.parent / "policies.md", "\n".join(side_by_side(tables)) + "\n")
    print("\n".join(markdown(table)))


if __name__ == "__main__":
    main()
