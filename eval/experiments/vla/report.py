"""The table of `eval.experiments.vla`, as markdown and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bac.files import write_text
from eval.setup.files import write_json
from eval.setup.provenance import provenance


def markdown(table: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each way: successes on every task, and the success over all with its intervals."""
    tasks = list(table[0]["tasks"])
    n = table[0]["tasks"][tasks[0]]["n"]
    lines = [
        f"| way | steps | all, {len(tasks)} x {n} episodes | difference to {table[0]['name']} | "
        + " | ".join(task.removesuffix("-v3") for task in tasks)
        + " |",
        "|---" * (4 + len(tasks)) + "|",
    ]
    for row in table:
        success, lost = ("{:.3f} [{:.3f}, {:.3f}]".format(*row["all"][name]) for name in ("success", "difference"))
        each = " | ".join(f"{row['tasks'][task]['success'][0]:.2f}" for task in tasks)
        lines.append(f"| {row['name']} | {row['steps']} | {success} | {lost} | {each} |")
    return lines


def publish(folder: Path, table: Sequence[dict[str, Any]]) -> None:
    """Write ``table.md`` and ``table.json``."""
    note = "Success rates; 95 % intervals of Wilson, and of Newcombe for paired differences over all episodes."
    write_json(folder / "table.json", {"provenance": provenance(), "rows": list(table)})
    write_text(folder / "table.md", "\n".join([*markdown(table), "", note, "", f"`{provenance()['command']}`", ""]))
