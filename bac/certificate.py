"""The certificate: the verdict of a closed-loop comparison, kept beside the schedule that it is about."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from bac.errors import MismatchError, ScheduleError
from bac.files import as_it_is, one_sentence, part, read_json, write_json

CERTIFICATE_NAME = "certificate.json"
WEIGHTS_NAME = "model.safetensors"
_FORMAT, _VERSION = "bac.certificate", 1
_MAKE = "python -m eval.certify certify.file=BAC_JSON"
_ROUNDING = 1e-6  # of bounds that were found by bisection
_EXPORT = re.compile(r"(\S.*?):(\w+)(?= |$)")  # a name, which may hold blanks, and its hash
_PIECE = 1 << 20  # bytes read at once
_KINDS: dict[Any, Any] = {"str": str, "int": int, "float": (int, float)}  # by annotation
_VERDICTS = {"shown": "certified", "refuted": "REFUTED", "undecided": "not decided"}


@dataclass(frozen=True)
class Certificate:
    """The verdict of a sequential comparison of a cached policy with its reference, pair by pair.

    Attributes:
        verdict: ``shown``: `method` is worse by less than `margin`. ``refuted``: it is not. ``undecided``: neither.
        task: Task of the episodes.
        method: Name of the way to denoise under test.
        reference: Name of the way to denoise that it was compared with.
        quantity: ``success`` (rate) or ``score``, in [0, 1].
        n: Paired episodes until the verdict.
        difference: Mean difference, method minus reference, in [-1, 1].
        low: Lower bound of `difference` at `confidence`, valid although the comparison chose when to stop.
        high: Upper bound, likewise.
        margin: Largest acceptable loss of `quantity`, in (0, 1).
        confidence: Confidence of the verdict, in (0, 1).
        first_seed: First seed of the environments. No seed of the comparison should have served to make the schedule.
        schedule_hash: SHA-256 of the schedule's file, first 16 hex digits.
        weights_hash: SHA-256 of the policy's weights, likewise.
        command: Command line of the comparison.
        device: Device of the comparison.
        date: Day of the verdict, YYYY-MM-DD.
        exports: Exported files of the same policy and schedule that it covers too, each as ``NAME:HASH``, hashed
            likewise; empty for none. Their actions were compared with the policy's (`bac.export`).

    Raises:
        ScheduleError: `verdict` is unknown or not what the bounds say, or a value has another type or is out of range.
    """

    verdict: str
    task: str
    method: str
    reference: str
    quantity: str
    n: int
    difference: float
    low: float
    high: float
    margin: float
    confidence: float
    first_seed: int
    schedule_hash: str
    weights_hash: str
    command: str
    device: str
    date: str
    exports: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), _KINDS[field.type]
            if isinstance(value, bool) or not isinstance(value, kind) or (kind is not str and not isfinite(value)):
                raise ScheduleError(f"certificate: {field.name} must be a finite {field.type}, got {value!r:.80}")
        if self.verdict not in _VERDICTS:
            raise ScheduleError(f"certificate: verdict must be one of {', '.join(_VERDICTS)}, got {self.verdict!r}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Refuse numbers that no comparison makes, and a verdict that they do not bear."""
        if self.n < 1 or not 0 < self.margin < 1 or not 0 < self.confidence < 1:
            raise ScheduleError(
                f"certificate: n must be at least 1, margin and confidence in (0, 1), got {self.n}, {self.margin:g}, "
                f"{self.confidence:g}"
            )
        if not all(-1 <= value <= 1 for value in (self.difference, self.low, self.high)):
            raise ScheduleError("certificate: difference, low and high must be in [-1, 1]")
        held = {"shown": self.low >= -self.margin - _ROUNDING, "refuted": self.high <= -self.margin + _ROUNDING}
        if not held.get(self.verdict, True):
            raise ScheduleError(
                f"certificate: its bounds, [{self.low:+.3f}, {self.high:+.3f}] at a margin of {self.margin:g}, do not "
                f"bear the verdict {self.verdict!r}"
            )

    def save(self, path: str | Path) -> None:
        """Write it as JSON; `beside` finds it under the name ``certificate.json``."""
        write_json(path, {"format": _FORMAT, "version": _VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Read what `save` wrote.

        Raises:
            ScheduleError: There is no such file, or it is not a complete certificate of this version.
        """
        document = read_json(path, _MAKE)
        with one_sentence(path, _MAKE):
            if (document.get("format"), document.get("version")) != (_FORMAT, _VERSION):
                raise ScheduleError(f"is no certificate of version {_VERSION}")
            document.setdefault("exports", "")  # older certificates lack it
            return cls(**{field.name: part(document, field.name, as_it_is) for field in fields(cls)})

    @classmethod
    def beside(cls, schedule_path: str | Path) -> Certificate | None:
        """Read the certificate in the folder of a schedule; None if there is none.

        Raises:
            ScheduleError: The certificate cannot be read.
            MismatchError: It was made for another schedule, or for other weights than those in the folder.
        """
        path = Path(schedule_path).with_name(CERTIFICATE_NAME)
        if not path.is_file():
            return None
        certificate, weights_path = cls.load(path), path.with_name(WEIGHTS_NAME)
        certified = {Path(schedule_path): certificate.schedule_hash}
        if weights_path.is_file():  # a schedule need not lie beside the weights
            certified[weights_path] = certificate.weights_hash
        certified |= {path.parent / Path(name).name: wanted for name, wanted in certificate._exported()}
        for file, wanted in certified.items():
            if (found := file_hash(file) if file.is_file() else "none") != wanted:
                raise MismatchError(
                    f"{path}: is for a {file.name} of hash {wanted}, but the one beside it has {found}. Remove the "
                    f"certificate, or certify again: python -m eval.certify certify.file={schedule_path}"
                )
        return certificate

    def covering(self, exports: Mapping[str, str]) -> Certificate:
        """The same certificate for exported files too: name to hash."""
        return replace(self, exports=" ".join(f"{name}:{its}" for name, its in exports.items()))

    def _exported(self) -> list[tuple[str, str]]:
        return _EXPORT.findall(self.exports)

    def __str__(self) -> str:
        what = f"{self.quantity} minus {self.reference} {self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        where = f"{self.n} paired episodes of {self.task}, margin {self.margin:g}, confidence {self.confidence:g}"
        return f"{_VERDICTS[self.verdict]}: {self.method}, {what} ({where})"


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, first 16 hex digits."""
    digest = hashlib.sha256()  # in pieces, because weights may be larger than memory
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()[:16]
