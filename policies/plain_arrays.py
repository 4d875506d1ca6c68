"""Looks at the description of every zarr array in a folder before a byte of it is decoded.

An array names the codecs that decode it, and ``pickle`` is one of them, so reading a folder of unknown origin can run
code: zarr 3.4.2 refuses that, earlier versions do not. Numbers and compression are let through here, nothing else.
`envs` has a copy, because neither package imports the other; `bac.caching.arrays` guards calibrations.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma")
_CODECS = ("bytes", "transpose", "crc32c", "blosc", "zstd", "gzip")
_NUMBERS = re.compile(r"[<>|][fiub]\d{1,2}|bool|float(16|32|64)|u?int(8|16|32|64)")


def refuse_code(folder: str | Path) -> None:
    """Refuse a folder with an array that holds something else than plain numbers.

    Open the folder with ``use_consolidated=False``, because consolidated descriptions are others than those read here.

    Raises:
        ValueError: It has one, or the description of an array cannot be read.
    """
    for path in _descriptions(folder):
        try:
            innocent = _is_plain(json.loads(path.read_bytes()))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError, OSError) as error:
            raise ValueError(f"{path}: cannot be read ({error!r:.200}); record or download the folder again") from error
        if not innocent:
            raise ValueError(
                f"{path.parent}: holds something else than plain numbers, and decoding that can run code; nothing was "
                "decoded. Record demonstrations yourself: python -m envs.collect"
            )


def require_whole(path: str | Path, group: Any, names: Iterable[str]) -> None:
    """Refuse arrays of which a part is missing, because zarr would read it as zeros.

    Raises:
        ValueError: A part of an array is missing.
    """
    for name in names:
        if (missing := group[name].nchunks - group[name].nchunks_initialized) > 0:
            raise ValueError(f"{path}: {missing} of {group[name].nchunks} parts of {name} are missing; copy it again")


def _descriptions(folder: str | Path) -> Iterator[Path]:
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):  # as zarr follows them
        here = os.path.realpath(parent)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        yield from (Path(parent, name) for name in names if name in (".zarray", "zarr.json"))


def _is_plain(described: dict[str, Any]) -> bool:
    if described.get("node_type") == "group":
        return True
    if described["zarr_format"] == 2:
        kind, compressor = described["dtype"], described["compressor"]
        innocent = compressor is None or compressor["id"] in _COMPRESSORS
        plain = not described.get("filters")
    else:
        kind, innocent = described["data_type"], all(codec["name"] in _CODECS for codec in described["codecs"])
        plain = not described.get("storage_transformers")
    return plain and innocent and isinstance(kind, str) and _NUMBERS.fullmatch(kind) is not None
