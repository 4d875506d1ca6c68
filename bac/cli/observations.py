"""The observations that `bac calibrate` saw, kept beside its schedule, so that `bac tune` need not play again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bac.errors import BacError, CalibrationError
from bac.files import drafted, one_sentence, part
from bac.tuning.batches import num_rows

NAME = "bac.observations.safetensors"  # beside bac.json
_MAKE = "bac calibrate --policy-path CKPT --env ENV"


def save(path: Path, batches: Sequence[Mapping[str, Any]]) -> None:
    """Write batches to one file: tensors as they are, everything else as JSON.

    Raises:
        CalibrationError: A value is neither a tensor nor plain JSON.
        FileError: The folder or the disk does not take it.
    """
    from safetensors.torch import save_file  # comes with LeRobot, as the observations do

    tensors: dict[str, Tensor] = {}
    words: list[dict[str, Any]] = []
    for index, batch in enumerate(batches):
        words.append({name: value for name, value in batch.items() if not isinstance(value, Tensor)})
        for name, value in batch.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value.detach().cpu().clone().contiguous()
    try:
        kept = json.dumps(words)
    except TypeError as error:
        raise CalibrationError(
            f"observations: must be tensors, texts and numbers, to be kept in a file ({error})"
        ) from error
    with drafted(path) as draft:
        save_file(tensors, draft, metadata={"batches": kept})


def load(path: Path, *, device: str = "cpu") -> list[dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        BacError: The file is damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with one_sentence(path, _MAKE, BacError), safe_open(path, framework="pt", device=device) as file:
            batches: list[dict[str, Any]] = part(file.metadata() or {}, "batches", json.loads)
            for key in file.keys():  # noqa: SIM118 (no mapping)
                index, _, name = key.partition("/")
                batches[int(index)][name] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise BacError(f"{path}: cannot be read ({error}). Make it anew: {_MAKE}") from error
    return batches


def describe(path: Path) -> str:
    """How many observations a file holds, and of what: name and shape of every tensor of a batch, line by line.

    Raises:
        BacError: The file is damaged, or holds something else.
    """
    batches = load(path)
    with one_sentence(path, _MAKE, BacError):
        tensors = {name: value for name, value in batches[0].items() if isinstance(value, Tensor)}
        head = f"Observations: {sum(map(num_rows, batches))} in {len(batches)} batches, for bac tune"
        return "\n".join([head, *(f"  {name} {list(value.shape)}" for name, value in tensors.items())])
