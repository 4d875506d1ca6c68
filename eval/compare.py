"""The whole table of one task: ``python -m eval.compare policy=assembly``.

Phases (`phase=`): ``calibrate`` collects observations, calibrations and schedules. ``latency`` chooses rivals that
match BAC's latency and times every cell; it needs an idle machine. ``episodes`` plays in `workers=` processes and is
resumable. ``report`` writes into the folder `results=`. ``all`` runs every phase and computes only what is missing.
"""

import logging
from pathlib import Path
from typing import Any

import hydra

from eval.compared.comparison import PHASES, Comparison
from eval.report.narrative import verdict
from eval.report.publish import publish
from eval.report.table import plain_table
from eval.setup.config import CONFIGS, log_to_terminal, settings_of

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Run the phases that the configuration asks for."""
    log_to_terminal()
    if config.phase not in ("all", *PHASES):
        raise SystemExit(f"phase: must be one of all, {', '.join(PHASES)}, got {config.phase!r}")
    comparison = Comparison(settings_of(config))
    wanted = PHASES if config.phase == "all" else (config.phase,)
    if "calibrate" in wanted:
        comparison.calibrate()
    if "latency" in wanted:
        comparison.measure_latency(anew=config.phase == "latency")
    if "episodes" in wanted:
        comparison.play()
    if "report" in wanted:
        rows = publish(comparison, Path(config.results), video=config.video)
        print(plain_table(rows, judged_by_score=comparison.settings.judged_by_score))
        print(*verdict(comparison), f"\nWritten to {config.results}", sep="\n")


if __name__ == "__main__":
    main()
