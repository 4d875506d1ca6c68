"""``python -m eval.experiments.fleet`` measures latencies, and writes the fleet's table, picture and page."""

from pathlib import Path
from typing import Any

import hydra

from eval.compared.comparison import Comparison
from eval.experiments.fleet.experiment import measure_fleet, table_of
from eval.experiments.fleet.report import publish
from eval.setup.config import CONFIGS, log_to_terminal, settings_of
from eval.setup.provenance import provenance


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="fleet")
def main(config: Any) -> None:
    """Measure latencies, compute the table and write the page."""
    log_to_terminal()
    comparison = Comparison(settings_of(config))
    measured = measure_fleet(comparison, config.fleet)
    table = table_of(measured, comparison.loaded.policy.config, config.fleet)
    publish(table, Path(config.fleet.folder), provenance())


if __name__ == "__main__":
    main()
