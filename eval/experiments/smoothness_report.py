"""The table and the picture of `eval.experiments.smoothness`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.setup.files import write_json
from eval.setup.provenance import provenance

JERKS = "jerk inside", "at seams", "all"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown."""
    titles = "task", "control_hz, delay", "way", "n", "success, score", "difference", *JERKS, "all, relative"
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        rate = f"{row['control_hz']:g} Hz, {row['delay_steps']} steps"
        jerks = [f"{row[f'jerk_{part}']:.3g}" for part in ("inside", "seam", "all")]
        cells = [row["task"], rate, row["way"], str(row["n"]), *map(_interval, (row["success"], row["difference"]))]
        lines.append("| " + " | ".join([*cells, *jerks, _interval(row["jerk_ratio"])]) + " |")
    return "\n".join(lines)


def publish(rows: Sequence[dict[str, Any]], folder: str | None) -> None:
    """Print the table; write ``table.json``, ``table.md``, ``provenance.json`` to `folder`."""
    print(table(rows))
    if folder is None:
        return
    write_json(Path(folder) / "table.json", list(rows))
    write_json(Path(folder) / "provenance.json", provenance())
    (Path(folder) / "table.md").write_text(table(rows) + "\n")


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
