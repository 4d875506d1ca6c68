"""Table and picture of `eval.joint`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def publish(
    folder: Path, comparison: Any, found: Sequence[Any], latencies_ms: Mapping[str, float], played: Sequence[Any]
) -> None:
    """Write ``table.json``, ``front.png`` and ``provenance.json``."""
    raise NotImplementedError
