"""``python -m eval.experiments.vla policy=metaworld_ten n=20`` plays every way on every task, and writes the table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra

from eval.experiments.flow.rows import FITTED, FITTED_TO_OWN
from eval.experiments.vla import late_report
from eval.experiments.vla.experiment import Experiment
from eval.experiments.vla.late import Late, by_rate
from eval.experiments.vla.measures import EAGER
from eval.experiments.vla.report import markdown, publish
from eval.setup.config import CONFIGS, log_to_terminal, settings_of


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Play the missing episodes, print the table and write it."""
    log_to_terminal()
    try:
        found = Experiment(settings_of(config, of_many_tasks=True), config.vla)
    except FileNotFoundError:
        raise SystemExit(
            f"{config.checkpoint}: no checkpoint here. docs/train.md, A vision-language-action policy, has the "
            "lines that record and train one; a checkpoint elsewhere: checkpoint=FOLDER"
        ) from None
    check_names(config.vla)
    others = recorded(config.vla.late.latencies, config.vla.late.ways)
    late = Late(found.many, found.cells, config.vla.late) if config.vla.late.n else None
    found.play()
    if config.vla.only:
        return
    table, folder = found.table(), Path(config.vla.results) / found.many.settings.checkpoint.name
    publish(folder, table, found.latencies_ms()[EAGER])
    for cell in found.cells:
        if cell.family in (FITTED, FITTED_TO_OWN):  # as a bac.json each
            cell.denoising.save(folder / f"{cell.name.replace(' ', '-')}.json")
    print("\n".join(markdown(table)))
    if late is not None:
        tell_late(found, late, others, folder)


def check_names(options: Any) -> None:
    """Refuse, before minutes of fitting, files that are not there and ways that no option makes.

    Raises:
        ValueError: As said; `Late` checks the rest.
    """
    if missing := [file for file in options.files if not Path(file).is_file()]:
        raise ValueError(f"vla.files: there is no file {', '.join(missing)}; bac tune and eval.tune write one")
    known = [f"Euler-{count}" for count in options.own] + [f"fitted-{count}" for count in options.fitted]
    known += [f"fitted-{count} to own" for count in options.fitted_to_own]
    known += [f"BAC S={updates} n={bubbled}" for updates, bubbled in options.bac]
    found_later = ("sweeps", "steps")  # the ends of names that caches and files get
    late = options.late.ways if options.late.n else ()
    if unknown := [way for way in late if way not in known and not way.endswith(found_later)]:
        raise ValueError(
            f"vla.late.ways: {', '.join(unknown)}: no such way here. Known: {', '.join(known)}; type "
            f"vla.late.ways=[{known[0]}], for example"
        )


def recorded(path: str | None, ways: Sequence[str]) -> list[dict[str, Any]]:
    """Latencies of other machines from a file, or none.

    Args:
        path: The file.
        ways: The ways that are played late.

    Raises:
        ValueError: There is no such file, it holds something else, or a way that is not played late.
    """
    if path is None:
        return []
    rule = 'must be a JSON list of {"machine": "a robot", "way": "Euler-10", "ms": 56.0}'
    if not Path(path).is_file():
        raise ValueError(f"vla.late.latencies: there is no file {path}; it {rule}")
    rows = json.loads(Path(path).read_text())
    if not isinstance(rows, list) or any(set(row) != {"machine", "way", "ms"} for row in rows):
        raise ValueError(f"vla.late.latencies: {path} {rule}")
    if unknown := {row["way"] for row in rows} - set(ways):
        raise ValueError(f"vla.late.latencies: {path} has {', '.join(sorted(unknown))}; name it in vla.late.ways, too")
    return rows


def tell_late(found: Experiment, late: Late, others: list[dict[str, Any]], folder: Path) -> None:
    """Play the world that does not wait, and write its page."""
    late.play()
    times = {name: latency["p50_ms"] for name, latency in found.latencies_ms().items()}
    here = [{"machine": "this one, replayed", "way": cell.name, "ms": times[cell.name]} for cell in late.cells]
    first = found.cells[0].name
    if first in late.options.ways:
        here.insert(0, {"machine": "this one, by PyTorch", "way": first, "ms": times[EAGER]})
    rows = late.table()
    machines = by_rate(rows, [*here, *others], late.options.control_hz)
    late_report.publish(folder, rows, machines)
    print("\n".join(late_report.markdown(rows, machines)))


if __name__ == "__main__":
    main()
