"""Draws what `bac` writes beside a policy: chosen by the file's name, and a bac.json under any other name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bac.caching.calibration import Calibration
from bac.certificate import CERTIFICATE_NAME, Certificate
from bac.cli import observations
from bac.denoising import Denoising, load
from bac.errors import BacError
from bac.exported import CARD_NAME, Card
from bac.files import as_it_is, one_sentence, part, read_json
from bac.guarding import Guard
from bac.guarding.files import GUARD_NAME
from bac.tuning.comparison import FORMAT as COMPARED
from bac.tuning.comparison import Comparison

REPORT_NAME, PICTURE_NAME = "bac.tuned.json", "bac.tuned.png"  # beside bac.json
COMPARISON_NAME = "bac.compared.json"  # of bac compare
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".mp4", ".pdf", ".svg")


def drawn(path: Path) -> str:
    """A file of `bac`, drawn or described.

    Raises:
        BacError: It cannot be read, or is none of `bac`'s.
    """
    if path.suffix.lower() in _PICTURES:
        raise BacError(f"{path}: is a picture or a film; bac show draws {path.parent / 'bac.json'}")
    if path.suffix == ".safetensors" and path.name != observations.NAME:
        raise BacError(f"{path}: holds weights; what is in a policy says bac doctor --policy-path {path.parent}")
    if path.is_dir():
        return str(_folder(path))
    return str(_BY_NAME.get(path.name, _by_content)(path))


def _folder(path: Path) -> object:
    if (path / "config.json").is_file():
        raise BacError(f"{path}: is a policy's folder; type bac doctor --policy-path {path}, or name a file in it")
    return Card.load(path) if (path / CARD_NAME).is_file() else Calibration.load(path)


def _by_content(path: Path) -> object:
    """A table of bac compare, a report of bac tune, or a bac.json, under any name."""
    document = read_json(path)
    if document.get("format") == COMPARED:
        return Comparison.load(path)
    return _report(path) if {"chosen", "rows"} <= document.keys() else load(path)


def _report(path: Path) -> str:
    document = read_json(path)
    with one_sentence(path):
        chosen = part(document, "chosen", as_it_is)
        denoising = part(chosen, "denoising", lambda given: Denoising.from_document(given, str(path)))
        count = part(document, "rows", len)
    return f"Report of bac tune: {count} ways to denoise were tried. Its choice:\n{denoising}"


_BY_NAME: dict[str, Callable[[Path], object]] = {
    GUARD_NAME: Guard.load,
    CERTIFICATE_NAME: Certificate.load,
    CARD_NAME: lambda path: Card.load(path.parent),
    REPORT_NAME: _report,
    observations.NAME: observations.describe,
}
