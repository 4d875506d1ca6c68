"""Writes the bac.json that LeRobot's commands follow; a certificate of the one before must not stand beside it."""

from __future__ import annotations

from pathlib import Path

from bac.certificate import CERTIFICATE_NAME, Certificate, file_hash
from bac.denoising import Denoising
from bac.errors import ScheduleError


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
    kept = certificate.replace(certificate.with_name("certificate.before.json"))
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
