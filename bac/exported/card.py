"""The card: all that a program must know of an export besides the exported file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bac.errors import MismatchError, ScheduleError
from bac.exported.ports import Noise, Port, Scaling, check_member
from bac.files import as_number, as_text, as_whole, one_sentence, part, read_json, write_json

CARD_NAME = "card.json"
MAKE = "bac export --policy-path CKPT --out FOLDER"
_KIND, _VERSION = "bac.export", 1
_PIECE = 1 << 20  # bytes read at once
_FORMATS, _DEVICES = ("pt2", "onnx"), ("cpu", "cuda")


@dataclass(frozen=True)
class Card:
    """Describes an export. It is kept as ``card.json`` and prints as a report.

    Attributes:
        format: ``pt2`` or ``onnx``.
        policy: Dotted class name of the exported policy.
        denoising: Name of the way to denoise; ``bac.json`` holds it.
        device: Device that it was exported for: ``cpu`` or ``cuda``.
        inputs: Observations, in the order of the exported program's arguments.
        noise: Random draws, the arguments after `inputs`.
        output: The action chunk.
        scaling: How to normalise, by name of an input or the output. What is missing stays as it is.
        n_obs_steps: Observation steps To.
        n_action_steps: Actions Ta of a chunk that are executed.
        errors: File to the largest difference to the policy's own chunk, relative to the largest action.
        num_checked: Chunks compared for that, each of another observation and other noise.
        hashes: File to the first 16 hex digits of its SHA-256; ``weights`` is the hash of the policy's weights.
        build_s: File to the time it took to make [s].
        versions: Package to version.

    Raises:
        ScheduleError: Values contradict each other, or are out of range.
    """

    format: str
    policy: str
    denoising: str
    device: str
    inputs: tuple[Port, ...]
    noise: tuple[Noise, ...]
    output: Port
    scaling: Mapping[str, Scaling]
    n_obs_steps: int
    n_action_steps: int
    errors: Mapping[str, float]
    num_checked: int
    hashes: Mapping[str, str]
    build_s: Mapping[str, float]
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        check_member("card", "format", self.format, _FORMATS)
        check_member("card", "device", self.device, _DEVICES)
        if not self.inputs or min(self.n_obs_steps, self.n_action_steps) < 1 or self.num_checked < 0:
            raise ScheduleError("card: must have an input, and n_obs_steps and n_action_steps >= 1")
        if any(port.has_window and port.shape[1] != self.n_obs_steps for port in self.inputs):
            raise ScheduleError(f"card: an input's window must be of n_obs_steps = {self.n_obs_steps} observations")
        ports = {port.name: port for port in (*self.inputs, self.output)}
        if len(ports) + len(self.noise) != len({*ports, *(one.name for one in self.noise)}):
            raise ScheduleError("card: two inputs have one name")
        for name, scaling in self.scaling.items():
            if name not in ports:
                raise ScheduleError(f"scaling: {name:.40} is neither an input nor the output")
            scaling.check_fits(ports[name])
        for name in self.errors:
            if name not in self.build_s:
                raise ScheduleError(f"errors: {name:.40} is no file that build_s knows")

    def save(self, folder: Path) -> None:
        """Write it into an export's folder."""
        write_json(folder / CARD_NAME, {"kind": _KIND, "version": _VERSION, **asdict(self)})

    @classmethod
    def load(cls, folder: str | Path) -> Card:
        """Read the card of an export.

        Raises:
            ScheduleError: The folder holds no card, or one that this version cannot read.
        """
        path = Path(folder) / CARD_NAME
        document = read_json(path, MAKE)
        with one_sentence(path, MAKE):
            if (document.get("kind"), document.get("version")) != (_KIND, _VERSION):
                raise ScheduleError(f"is no card of version {_VERSION}")
            return cls(**{field.name: part(document, field.name, _READ[field.name]) for field in fields(cls)})

    def about(self, folder: Path, build_s: Mapping[str, float]) -> Card:
        """The card with the hashes of all files of a folder.

        Args:
            folder: The export's folder.
            build_s: Exported file to the time it took to make [s].
        """
        hashes = {path.name: file_hash(path) for path in sorted(folder.iterdir())}
        return replace(self, hashes={**hashes, **self.hashes}, build_s=dict(build_s))

    def check_files(self, folder: Path, *names: str) -> None:
        """Compare files with the hashes that were taken when they were checked.

        Raises:
            MismatchError: A file is missing, or is not the one that the card is about.
        """
        for name in names:
            path = folder / name
            found = file_hash(path) if path.is_file() else "no file"
            if found != self.hashes.get(name):
                raise MismatchError(
                    f"{path}: {CARD_NAME} is about a file of hash {self.hashes.get(name)}, found {found}. "
                    f"Export again: {MAKE}"
                )

    def __str__(self) -> str:
        lines = [f"Export: {self.policy.rpartition('.')[2]}, {self.denoising}, for {self.device}"]
        lines += [f"  in   {port.name} {list(port.shape)} {port.dtype}, {port.unit}" for port in self.inputs]
        lines += [f"  in   {draw.name} {list(draw.shape)} {draw.dtype}, {draw.distribution}" for draw in self.noise]
        lines.append(f"  out  {self.output.name} {list(self.output.shape)} {self.output.dtype}, {self.output.unit}")
        for name, error in self.errors.items():
            same = "bit-equal to" if error == 0 else f"within {error:.1e} of"
            lines.append(
                f"  {name}: {same} the policy on {self.num_checked} chunks, made in {self.build_s[name]:.0f} s"
            )
        return "\n".join(lines)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, first 16 hex digits."""
    digest = hashlib.sha256()  # in pieces, because weights may be larger than memory
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _port(given: Any) -> Port:
    return Port(**{**given, "shape": tuple(map(as_whole, given["shape"]))})


def _noise(given: Any) -> Noise:
    return Noise(**{**given, "shape": tuple(map(as_whole, given["shape"]))})


def _by_name(convert: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda given: {name: convert(value) for name, value in given.items()}


_READ: dict[str, Any] = {
    **dict.fromkeys(("format", "policy", "denoising", "device"), as_text),
    **dict.fromkeys(("n_obs_steps", "n_action_steps", "num_checked"), as_whole),
    **dict.fromkeys(("errors", "build_s"), _by_name(as_number)),
    **dict.fromkeys(("hashes", "versions"), _by_name(as_text)),
    "inputs": lambda given: tuple(map(_port, given)),
    "noise": lambda given: tuple(map(_noise, given)),
    "output": _port,
    "scaling": _by_name(lambda scaling: Scaling(**scaling)),
}
