"""Does the noise that a chunk begins with help? ``python -m eval.experiments.noise policy=so101_dit n=200``.

A flow-matching policy begins every chunk with noise, and fewer of its own steps keep less of what the noise would
change. Here the policy makes all of its own steps from less noise, or from none, in the same worlds: what is gained
then has nothing to do with steps.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra

from bac.files import write_text
from eval.compared.many_tasks import ManyTasks
from eval.experiments.flow.rows import own
from eval.measure.closed_loop import closed_loop
from eval.setup.cells import Cell
from eval.setup.config import CONFIGS, log_to_terminal, settings_of
from eval.setup.files import write_json
from eval.setup.provenance import provenance

NOTE = """Success rates with Wilson's 95 % intervals; paired differences with Newcombe's. A scale multiplies the noise
that a chunk begins with; the policy was trained with 1."""


def cells(options: Any) -> list[Cell]:
    """The policy itself, then it from less noise, then fewer of its own steps from all of it."""
    quiet = [
        replace(own(), name=f"{own().name} from noise x {scale:g}", noise_scale=float(scale))
        for scale in options.scales
    ]
    return [own(), *quiet, *(own(count) for count in options.steps)]


def table(many: ManyTasks, ways: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row for each way: success over all tasks, and the difference to the policy itself."""
    itself = many.all_results(ways[0])
    return [{"name": way.name, **closed_loop(itself, many.all_results(way), by_score=False)} for way in ways]


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table."""
    lines = [f"| way | success of {rows[0]['n']} | minus {rows[0]['name']} |", "|---|---|---|"]
    for row in rows:
        (value, low, high), (lost, lowest, highest) = row["success"], row["difference"]
        lines.append(f"| {row['name']} | {value:.3f} [{low:.3f}, {high:.3f}] | {_signed(lost, lowest, highest)} |")
    return lines


def _signed(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Play the missing episodes, print the table and write it."""
    log_to_terminal()
    many = ManyTasks(settings_of(config, of_many_tasks=True), config.vla.tasks or [config.env.task], config.vla.pixels)
    ways = cells(config.noise)
    many.play(ways)
    rows, source = table(many, ways), provenance()
    folder = Path(config.vla.results) / many.settings.checkpoint.name
    write_json(folder / "noise.json", {"rows": rows, "provenance": source})
    text = [*markdown(rows), "", NOTE, "", f"`{source['command']}`"]
    write_text(folder / "noise.md", "\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
