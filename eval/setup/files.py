"""JSON files of results."""

from pathlib import Path
from typing import Any

from bac import files


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, so that a reader never sees half a file; make its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, value)
