"""The page of methods is that of its source, which names files that are there, and leaves no method out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eval.report.methods import PAGE, SOURCE, filled, load, tables

ROOT = Path(__file__).parents[2]
SHARED = {
    "caching/schedulers": {"__init__", "statistics"},
    "caching/estimators": {"__init__", "estimator", "fitted", "forecast"},
    "published": {"__init__", "naming", "interval", "perturbation"},
    "solvers": {"__init__", "naming", "solver", "guidance", "interceptor", "flow_interceptor"},
}


def named() -> set[str]:
    return set(re.findall(r"`([\w/]+\.py)`", SOURCE.read_text()))


def test_every_file_that_the_table_names_exists() -> None:
    assert sorted(path for path in named() if not (ROOT / "bac" / path).exists()) == []


def test_every_method_is_in_the_table() -> None:
    files = {
        f"{folder}/{path.name}"
        for folder, others in SHARED.items()
        for path in (ROOT / "bac" / folder).glob("*.py")
        if path.stem not in others
    }
    assert sorted(files - named()) == []


def test_the_page_is_made_of_its_source() -> None:
    assert filled(PAGE.read_text(), tables(load())) == PAGE.read_text(), "type: python -m eval.report.methods"


def test_nothing_is_both_here_and_not_here() -> None:
    methods = load()
    rows = [*methods["here"], *(row for rows in methods["not_here"].values() for row in rows)]
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert all(row["why"].strip() for rows in methods["not_here"].values() for row in rows)


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the line <!-- here"):
        filled("# Methods\n", tables(load()))
