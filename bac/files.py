"""Reads and writes files: a reader sees the old one or the new one, and whatever is wrong with one is one sentence.

``bac.json`` holds one way to denoise (`bac.Denoising`). Two older formats are still read: a schedule alone
(``bac.schedule``, version 1), and the first format of `bac tune` (``bac.denoising``, version 1).
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bac import presets
from bac.drafts import draft_beside, sweep
from bac.errors import BacError, FileError, ScheduleError

FORMAT, VERSION = "bac.denoising", 2
_SCHEDULE = "bac.schedule"
MAKE = "bac tune --policy-path CKPT --env ENV --target-hz 25"
_LARGEST = 256 << 20  # bytes; a bac.json has kilobytes, a large one with fitted estimators megabytes
_LONGEST = 400  # characters of what is wrong with a file
_PROBE = 4096  # bytes; an empty file fits on a full disk

Value = TypeVar("Value")
# What Python raises while a document of any content is turned into values.
_MISREAD = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError, MemoryError)


def write_json(path: str | Path, document: Any) -> None:
    """Write a document so that a reader sees the old file or the new one, never half of one.

    Raises:
        FileError: The folder or the disk does not take it. The old file is as it was.
    """
    write_text(path, json.dumps(document, indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text as `write_json` writes a document."""
    target = Path(path)
    with reporting(target):
        _write(target, text, keep=True)


def probe(path: str | Path, *, folder: bool = False) -> None:
    """Try whether `path` can be written, before minutes of work; nothing is left behind.

    Args:
        folder: It is to be a folder.

    Raises:
        FileError: It cannot.
    """
    target = Path(path)
    with reporting(target):
        if target.exists() and target.is_dir() != folder:
            raise FileExistsError("it is a file" if folder else "it is a folder")
        _write(target, " " * _PROBE, keep=False)


def _write(target: Path, text: str, *, keep: bool) -> None:
    draft = draft_beside(target)
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the final name
        if keep:
            os.replace(draft, target)
            sweep(target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def drafted(path: str | Path) -> Iterator[Path]:
    """Within the context, a new name beside `path` to write to, with the same suffix; at the end it takes its place.

    If the context raises, the old file is as it was, and nothing is left behind.

    Raises:
        FileError: The folder or the disk does not take it.
    """
    target = Path(path)
    draft = draft_beside(target, suffix="")
    with reporting(target):
        try:
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(draft, target)
            sweep(target)
        finally:
            draft.unlink(missing_ok=True)


def put_folder(draft: Path, target: Path) -> None:
    """Give a folder its final name. What had that name before is at `draft` afterwards, if there was something.

    Linux exchanges two names at once. Elsewhere nothing has the final name for a moment.
    """
    if target.exists() and not target.is_dir():
        raise NotADirectoryError("it is a file")
    if not target.exists():
        os.rename(draft, target)
    elif not _exchange(draft, target):
        _swap(draft, target)


def _swap(draft: Path, target: Path) -> None:
    aside = draft_beside(target)
    os.rename(target, aside)
    try:
        os.rename(draft, target)
    finally:
        os.rename(aside, draft if target.exists() else target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@contextmanager
def reporting(target: Path) -> Iterator[None]:
    """Turn an error of the system into a sentence that names the file."""
    try:
        yield
    except FileError:  # it is a sentence already, about another file
        raise
    except OSError as error:
        if not target.parent.is_dir():
            why = f"there is no folder {target.parent} to write to; make it first"
        else:
            why = f"cannot be written: {error.strerror or brief(error)}; what was there before is unchanged"
            why += ". Choose another place, or make room"
        raise FileError(f"{target}: {why}") from error


def read_json(path: str | Path, make: str = MAKE) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        make: The command that makes such a file, for the error.

    Raises:
        ScheduleError: There is no such file, or it holds no JSON object.
    """
    try:
        text = _bounded(Path(path))
    except FileNotFoundError as error:
        raise ScheduleError(f"{path}: there is no such file. Make one: {make}") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ScheduleError(f"{path}: cannot be read: {brief(why)}. Make one: {make}") from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ScheduleError(f"{path}: cannot be read as JSON ({brief(error)}). Make it anew: {make}") from error
    if not isinstance(document, dict):
        raise ScheduleError(f"{path}: must hold a JSON object, holds {type(document).__name__}. Make it anew: {make}")
    return document


def _bounded(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
        raise ValueError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no ordinary file")
    if status.st_size > _LARGEST:
        raise ValueError(f"it has {status.st_size >> 20} MiB, more than any file of bac ({_LARGEST >> 20} MiB)")
    with path.open("rb") as file:
        return file.read(_LARGEST)


@contextmanager
def one_sentence(origin: str | Path, make: str = MAKE, kind: type[BacError] = ScheduleError) -> Iterator[None]:
    """Turn whatever goes wrong with a document into one sentence: the file, the field, and what makes a new one."""
    try:
        yield
    except _MISREAD as error:  # a ScheduleError is a ValueError
        why = brief(error) if isinstance(error, BacError) else f"holds what cannot be read ({brief(repr(error))})"
        raise kind(f"{origin}: {why}. Make it anew: {make}") from error


def part(document: Any, name: str, convert: Callable[[Any], Value]) -> Value:
    """One part of a document, converted.

    Raises:
        ScheduleError: It is missing, or of another type; the message names it.
    """
    if not isinstance(document, Mapping):
        raise ScheduleError(f"must be an object with {name}, got {type(document).__name__}")
    if name not in document:
        raise ScheduleError(f"{name}: is missing")
    try:
        return convert(document[name])
    except BacError:
        raise
    except _MISREAD as error:
        raise ScheduleError(f"{name}: is of another type than it must be ({brief(repr(error))})") from error


def as_it_is(value: Any) -> Any:
    """For a `part` that the value made of it checks."""
    return value


def as_number(value: Any) -> float:
    """A number, and neither a text nor a truth value that Python would take for one.

    Raises:
        TypeError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"must be a number, got {value!r:.40}")
    return float(value)


def as_whole(value: Any) -> int:
    """A whole number.

    Raises:
        TypeError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"must be a whole number, got {value!r:.40}")
    return value


def as_text(value: Any) -> str:
    """A text.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"must be a text, got {value!r:.40}")
    return value


def brief(what: object) -> str:
    """One line, not too long, of something that may come from any file."""
    line = " ".join(str(what).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def read_denoising(path: str | Path) -> dict[str, Any]:
    """Read a ``bac.json`` of any format and convert it to the current one. It may only name a preset.

    Raises:
        ScheduleError: The file cannot be read, or holds something else.
    """
    document = read_json(path)
    found = document.get("format"), document.get("version")
    if found == (FORMAT, VERSION) and "preset" in document:
        with one_sentence(path):
            if lost := sorted(map(str, document.keys() - {"format", "version", "preset"})):
                raise ScheduleError(f"preset: stands alone, but here is {', '.join(lost)} too; remove one or the other")
            return read_json(presets.path_of(part(document, "preset", as_text)))
    if found == (FORMAT, VERSION):
        return document
    update = next((update for known, update in _OLDER.items() if known == found), None)
    if update is None:
        raise ScheduleError(
            f"{path}: is no bac.json that this bac reads (format {brief(repr(found[0]))}, version "
            f"{brief(repr(found[1]))}). Write one: bac tune, bac calibrate, or denoising.save(path)"
        )
    with one_sentence(path):
        return update(document)


def _from_schedule(document: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a schedule alone; solver and number of steps stay the policy's own."""
    steps = {name: part(document, name, as_it_is) for name in ("num_steps", "update_steps")}
    return {
        "solver": None,
        "timesteps": [],
        "num_steps": None,
        "schedule": steps,
        "estimator": {"name": document.get("estimator", "hold")},
        "fingerprint": part(document, "fingerprint", as_it_is),
    }


def _from_first(document: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the first format. Solver and timesteps make its schedule's second fingerprint redundant."""
    solver = part(document, "solver", as_it_is)
    schedule = part(document, "schedule", lambda given: None if given is None else _from_schedule(given))
    return {
        "solver": None if solver is None else {"name": solver, "coefficients": part(document, "weights", as_it_is)},
        "timesteps": part(document, "timesteps", as_it_is),
        "num_steps": part(document, "num_steps", as_it_is),
        "schedule": None if schedule is None else schedule["schedule"],
        "estimator": None if schedule is None else schedule["estimator"],
        "fingerprint": part(document, "fingerprint", as_it_is) or _of_policy(schedule),
    }


def _of_policy(schedule: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The part of a schedule's fingerprint that a solver does not change."""
    known = None if schedule is None else schedule["fingerprint"]
    return known and {**known, "num_steps": None, "solver": None, "timesteps": []}


_OLDER: dict[tuple[Any, Any], Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    (FORMAT, 1): _from_first,
    (_SCHEDULE, 1): _from_schedule,
}
