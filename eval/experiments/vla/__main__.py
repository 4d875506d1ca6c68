"""``python -m eval.experiments.vla policy=metaworld_ten n=20`` plays every way on every task, and writes the table."""

import json
from pathlib import Path
from typing import Any

import hydra

from eval.experiments.vla import late_report
from eval.experiments.vla.experiment import ManyTasks
from eval.experiments.vla.late import Late, by_rate
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
    table, folder = many.table(), Path(config.vla.results) / many.settings.checkpoint.name
    publish(folder, table, many.latencies_ms()[EAGER])
    print("\n".join(markdown(table)))
    if config.vla.late.n:
        tell_late(many, config.vla.late, folder)


def tell_late(many: ManyTasks, options: Any, folder: Path) -> None:
    """Play the world that does not wait, and write its page."""
    late = Late(many, options)
    late.play()
    measured = many.latencies_ms()
    here = [
        {"machine": "this one, replayed", "way": cell.name, "ms": measured[cell.name]["p50_ms"]} for cell in late.cells
    ]
    eager = {"machine": "this one, by PyTorch", "way": many.cells[0].name, "ms": measured[EAGER]["p50_ms"]}
    others = json.loads(Path(options.latencies).read_text()) if options.latencies else []
    rows = late.table()
    machines = by_rate(rows, [eager, *here, *others], options.control_hz)
    late_report.publish(folder, rows, machines)
    print("\n".join(late_report.markdown(rows, machines)))


if __name__ == "__main__":
    main()
