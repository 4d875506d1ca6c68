"""``python -m eval.experiments.vla policy=metaworld_ten n=20`` plays every way on every task, and writes the table."""

from pathlib import Path
from typing import Any

import hydra

from eval.experiments.vla.experiment import ManyTasks
from eval.experiments.vla.measures import EAGER
from eval.experiments.vla.report import markdown, publish
from eval.setup.config import CONFIGS, log_to_terminal, settings_of


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Play the missing episodes, print the table and write it."""
    log_to_terminal()
    try:
        many = ManyTasks(settings_of(config), config.vla)
    except FileNotFoundError:
        raise SystemExit(
            f"{config.checkpoint}: no checkpoint here. docs/evaluate.md, A vision-language-action policy, has the "
            "lines that record and train one; a checkpoint elsewhere: checkpoint=FOLDER"
        ) from None
    many.play()
    table = many.table()
    publish(Path(config.vla.results) / many.settings.checkpoint.name, table, many.latencies_ms()[EAGER])
    print("\n".join(markdown(table)))


if __name__ == "__main__":
    main()
