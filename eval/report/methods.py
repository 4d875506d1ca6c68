"""The tables of docs/methods.md, from methods.yaml: ``python -m eval.report.methods`` writes them into the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

SOURCE = Path(__file__).with_name("methods.yaml")
PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
_COLUMNS = ("name", "source", "kind", "when", "instead", "checked", "agrees")
_HEAD = ("method", "source", "", "when", "instead", "checked against", "agrees")


def load() -> dict[str, Any]:
    """What methods.yaml holds: under `here` the methods, under `not_here` lists by reason."""
    return dict(yaml.safe_load(SOURCE.read_text()))


def tables(methods: dict[str, Any]) -> dict[str, str]:
    """The tables in Markdown, by the name of their place in the page."""
    here = _table(_HEAD, [[row[column] for column in _COLUMNS] for row in methods["here"]])
    parts = []
    for reason, rows in methods["not_here"].items():
        parts.append(f"**{reason}**\n\n" + _table(("method", "source", "why"), [list(row.values()) for row in rows]))
    return {"here": here, "not here": "\n\n".join(parts)}


def filled(page: str, made: dict[str, str]) -> str:
    """A page with its tables made anew.

    Raises:
        ValueError: The page lacks the place of a table.
    """
    for name, table in made.items():
        begin, end = f"<!-- {name}: made of eval/report/methods.yaml -->", f"<!-- end of {name} -->"
        if begin not in page or end not in page:
            raise ValueError(f"{PAGE}: lacks the line {begin}, or {end}; put both around the table")
        page = f"{page.partition(begin)[0]}{begin}\n\n{table}\n\n{end}{page.partition(end)[2]}"
    return page


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), tables(load())))
