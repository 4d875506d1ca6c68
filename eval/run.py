"""One cell in closed loop: ``python -m eval.run policy=assembly cache=bac solver=ddpm n=50``.

`policy=` selects the policy and its world. `cache=`, `solver=` and their numbers (``cache.num_updates=15
solver.num_steps=20``) make the cell. ``latency=true`` times it beside dense DDPM-100. Finished episodes are not played
again. ``python -m eval.run policy=pusht export=FOLDER n=50`` plays what ``bac export`` wrote, beside the policy itself.
"""

import logging
from pathlib import Path
from typing import Any

import hydra

from bac.plan.replay import replay_named
from eval.compared.comparison import Comparison
from eval.compared.matching import measure_cells
from eval.play.exported import agreement, agreement_table, play_export
from eval.play.workers import play_units
from eval.report.table import make_row, plain_table
from eval.setup.batches import one_of
from eval.setup.cells import dense
from eval.setup.config import CONFIGS, cell_of, log_to_terminal, settings_of

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Play the cell's episodes and print its row."""
    log_to_terminal()
    settings = settings_of(config)
    if config.export is not None:
        print(agreement_table(agreement(play_export(settings, Path(config.export)))))
        return
    cell = cell_of(config)
    comparison = Comparison(settings)
    denoising = comparison.denoising(cell)
    print(denoising)
    play_units(settings, [comparison.unit(cell, tuple(settings.seeds))], comparison.log)
    latency = None
    if config.latency:
        batch, replay = one_of(comparison.calibrated.observations("fidelity")), replay_named(settings.executor)
        options = {"replay": replay, "rounds": settings.latency_rounds, "progress": settings.progress}
        latency = measure_cells(comparison.loaded, {cell: denoising}, batch, **options).cells[cell]
    row = make_row(
        cell,
        settings.task,
        comparison.results(cell),
        None if cell.describe() == dense().describe() else comparison.results(dense()),
        judged_by_score=settings.judged_by_score,
        latency=latency,
        flops_ratio=comparison.flops_ratio(cell),
        sweeps=comparison.sweeps(cell),
    )
    print(plain_table([row], judged_by_score=settings.judged_by_score))


if __name__ == "__main__":
    main()
