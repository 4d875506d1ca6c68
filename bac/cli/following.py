"""Writes the bac.json that LeRobot's commands follow, and loses nothing that lies there."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

from bac.certificate import CERTIFICATE_NAME, Certificate, file_hash
from bac.denoising import Denoising
from bac.errors import FileError, ScheduleError
from bac.files import probe

_OWN = "bac."  # formats of bac's files begin so


def check_target(target: Path, usual: str) -> None:
    """Try whether a file can be written, before minutes of work.

    Args:
        target: The file.
        usual: Its usual name. A file of this name may hold anything; under another name only a file of `bac` is
            replaced, and not a policy's ``config.json``.

    Raises:
        FileError: It cannot be written, or would replace something else.
    """
    if target.is_file() and target.name != usual and not _is_own(target):
        raise FileError(f"{target}: is no file of bac, and would be replaced; choose another name")
    probe(target)


def unused(path: Path) -> Path:
    """The path, or with a number in its name the first that is free."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return path if not path.exists() else next(other for other in numbered if not other.exists())


def _is_own(file: Path) -> bool:
    try:
        return str(json.loads(file.read_bytes())["format"]).startswith(_OWN)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def write(way: Denoising, target: Path) -> str:
    """Save a way to denoise, and rename the certificate of what the file said before.

    LeRobot's commands refuse a certificate of another file, and it took hundreds of episodes: it is neither left there
    nor lost.

    Returns:
        A line that says what became of the certificate; empty if nothing did.
    """
    certificate = _certificate_of(target)
    way.save(target)
    if certificate is None or Certificate.load(certificate).schedule_hash == file_hash(target):
        return ""
    kept = certificate.replace(unused(certificate.with_name("certificate.before.json")))
    return f"{CERTIFICATE_NAME} is about what {target.name} said before; it is kept as {kept}"


def _certificate_of(file: Path) -> Path | None:
    """The certificate beside a file, if it is about that file as it is now."""
    path = file.with_name(CERTIFICATE_NAME)
    if not (path.is_file() and file.is_file()):
        return None
    try:
        return path if Certificate.load(path).schedule_hash == file_hash(file) else None
    except ScheduleError:  # it is damaged, and about nothing
        return None
