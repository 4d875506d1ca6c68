"""The table of methods names files; they are there, and no scheduler, estimator or rule is left out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "results/methods/methods.md"
SHARED = {
    "caching/schedulers": {"__init__", "statistics"},
    "caching/estimators": {"__init__", "estimator", "fitted", "forecast"},
    "published": {"__init__", "naming", "interval", "perturbation"},
}


def named() -> set[str]:
    return set(re.findall(r"`([\w/]+\.py)`", TABLE.read_text()))


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
