"""Named arrays and attributes in a zarr folder: written whole, and checked before a byte of an array is decoded.

A zarr array names the codecs that decode it, and ``pickle`` is one of them, so reading a folder can run code: zarr
3.4.2 refuses that, earlier versions do not. Therefore the description of each array is read as plain JSON first:
numbers and compression are let through, nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bac.drafts import draft_beside, sweep
from bac.errors import CalibrationError
from bac.files import brief, put_folder, reporting

Array = npt.NDArray[np.float64]
_COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma")
_CODECS = ("bytes", "transpose", "crc32c", "blosc", "zstd", "gzip")
_NUMBERS = re.compile(r"[<>|][fiub]\d{1,2}|bool|float(16|32|64)|u?int(8|16|32|64)")
_LARGEST = 1 << 28  # values of an array
_TRIES = 20


def save(path: str | Path, arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> None:
    """Write a folder under another name, then swap it in. A reader sees the old folder or the new one.

    Raises:
        FileError: The folder or the disk does not take it. The old folder is as it was.
    """
    zarr = _zarr()
    target = Path(os.path.realpath(path))
    draft = draft_beside(target)
    with reporting(target):
        try:
            group = zarr.open_group(str(draft), mode="w")
            for name, values in arrays.items():
                group.create_array(name, data=values, config={"write_empty_chunks": True})
            group.attrs.update(**attributes, checksum=_checksum(arrays))
            _flush(draft)
            put_folder(draft, target)
            sweep(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def load(path: str | Path, required: Sequence[str], optional: Sequence[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read arrays and attributes.

    Args:
        required: Arrays that must be there.
        optional: Arrays that may be.

    Raises:
        CalibrationError: There is no such folder, an array is missing, incomplete or damaged, or decoding it would run
            code.
    """
    for _ in range(_TRIES):  # a folder that is swapped while it is read is read again
        before = _identity(path)
        try:
            return _load(Path(path), required, optional)
        except CalibrationError:
            if _identity(path) == before:
                raise
    raise CalibrationError("changes faster than it can be read; wait for what writes it")


def _zarr() -> Any:
    try:
        return importlib.import_module("zarr")
    except ModuleNotFoundError as error:
        raise CalibrationError("needs the package zarr: from the clone, pip install '.[zarr]'") from error


def _load(path: Path, required: Sequence[str], optional: Sequence[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    zarr = _zarr()
    if not path.is_dir():
        raise CalibrationError("there is no such folder" if not path.exists() else "is a file, not a folder")
    for name in (*required, *optional):
        refuse_code(path / name)
    try:
        # The consolidated descriptions of a group are others than those just read.
        group = zarr.open_group(str(path), mode="r", use_consolidated=False)
        attributes: dict[str, Any] = dict(group.attrs)
        present = [name for name in (*required, *optional) if name in group]
        if missing := set(required).difference(present):
            raise CalibrationError(f"is not complete: lacks {', '.join(sorted(missing))}")
        arrays = {name: _read(group[name], name) for name in present}
    except CalibrationError:
        raise
    except Exception as error:  # zarr, its codecs and its event loop raise anything
        raise CalibrationError(f"an array or its description is damaged or missing ({brief(repr(error))})") from error
    if attributes.get("checksum", known := _checksum(arrays)) != known:
        raise CalibrationError("its checksum does not fit its numbers, so a part is missing or damaged")
    return arrays, attributes


def _read(array: Any, name: str) -> Array:
    if prod(array.shape) > _LARGEST or prod(array.chunks) > _LARGEST:
        raise CalibrationError(f"{name}: holds more numbers than any calibration ({array.shape})")
    if array.nchunks_initialized < array.nchunks:  # zarr would fill them with zeros
        raise CalibrationError(
            f"{name}: {array.nchunks - array.nchunks_initialized} of {array.nchunks} parts are missing"
        )
    return np.asarray(array[...], dtype=np.float64)


def refuse_code(folder: Path) -> None:
    """Refuse an array whose description asks for more than numbers and compression.

    Raises:
        CalibrationError: It does, or cannot be read.
    """
    for name in (".zarray", "zarr.json"):
        try:
            text = (folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise CalibrationError(f"{folder.name}: its {name} cannot be read: {error.strerror}") from error
        try:
            innocent = _is_plain(json.loads(text))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise CalibrationError(f"{folder.name}: its {name} is damaged ({brief(repr(error))})") from error
        if not innocent:
            raise CalibrationError(
                f"{folder.name}: holds something else than plain numbers, and decoding that can run code; nothing was "
                "decoded. Do not open it elsewhere"
            )


def _is_plain(described: Mapping[str, Any]) -> bool:
    if described["zarr_format"] == 2:
        kind, compressor = described["dtype"], described["compressor"]
        innocent = compressor is None or compressor["id"] in _COMPRESSORS
        plain = not described.get("filters")
    else:
        kind, innocent = described["data_type"], all(codec["name"] in _CODECS for codec in described["codecs"])
        plain = not described.get("storage_transformers")
    return plain and innocent and isinstance(kind, str) and _NUMBERS.fullmatch(kind) is not None


def _checksum(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of names, shapes and little-endian numbers, first 16 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], dtype="<f8")
        digest.update(repr((name, values.shape)).encode() + values.tobytes())
    return digest.hexdigest()[:16]


def _identity(path: str | Path) -> tuple[int, int, int] | None:
    """What tells a folder from the one that takes its place; its number alone does not, as it is given again."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _flush(folder: Path) -> None:
    """Wait until every file is on the disk, or a power cut could leave empty ones under the final name."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
