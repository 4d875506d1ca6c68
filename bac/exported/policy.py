"""An export as a policy: `reset`, `predict_action_chunk`, `select_action`."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bac.errors import FileError, MismatchError
from bac.exported.card import MAKE, Card
from bac.exported.noise import drawn
from bac.exported.ports import Port
from bac.exported.runners import COMPILED, ONNX, PROGRAM, Runner, contiguous, open_file
from bac.exported.scaling import normalised, restored

Array = npt.NDArray[Any]
FILES = {"pt2": (COMPILED, PROGRAM), "onnx": (ONNX,)}  # by format, the fastest first


def load(
    folder: str | Path, *, file: str | None = None, is_normalised: bool = False, num_threads: int | None = None
) -> ExportedPolicy:
    """Load an export. It needs PyTorch alone for ``pt2``, NumPy and onnxruntime for ``onnx``.

    Args:
        folder: What `bac.export` or ``bac export`` wrote. Only load folders that you trust: a compiled file is machine
            code.
        file: The file to run; by default ``compiled.pt2`` if there is one, otherwise ``program.pt2``.
        is_normalised: Observations come normalised and actions stay normalised, as with a policy of LeRobot, whose
            processors do the rest. By default, both are in the data set's units.
        num_threads: Threads for onnxruntime; for PyTorch call ``torch.set_num_threads``.

    Raises:
        ScheduleError: The folder holds no card, or a damaged one.
        MismatchError: The file is not the one that the card is about.
        FileError: The file cannot be loaded on this machine, or there is none.
        BacError: The package that runs it is missing.
    """
    root, card = Path(folder), Card.load(folder)
    known = [name for name in FILES.get(card.format, ()) if name in card.hashes]
    if not known or (file is not None and file not in known):
        raise FileError(f"{root}: holds {', '.join(known) or 'no exported file'}, asked for {file}. Make it: {MAKE}")
    chosen = file or known[0]
    card.check_files(root, *(name for name in card.hashes if name.startswith(chosen)))  # and its external data
    runner = open_file(root / chosen, card, num_threads=num_threads)
    return ExportedPolicy(card, runner, is_normalised=is_normalised)


class ExportedPolicy:
    """A policy that is one exported file. Make it with `load`.

    `bac.ControlLoop` takes it like any other. Arrays come back as NumPy arrays, tensors as tensors.

    Args:
        card: Describes the file.
        runner: Runs it.
        is_normalised: See `load`.
    """

    def __init__(self, card: Card, runner: Runner, *, is_normalised: bool = False) -> None:
        self.card = card
        self._runner = runner
        self._scaling = {} if is_normalised else card.scaling
        self.reset()

    def reset(self) -> None:
        """Forget the episode: past observations and queued actions."""
        self._past: dict[str, deque[Array]] = {}
        self._queue: deque[Any] = deque()

    def draw(self, generator: Any = None) -> list[Array]:
        """The random draws of one run, as `predict_action_chunk` takes them; see `bac.exported.noise.drawn`."""
        return drawn(self.card.noise, generator)

    def predict_action_chunk(self, batch: Mapping[str, Any], noise: Any = None, generator: Any = None) -> Any:
        """Predict the actions to execute next.

        Args:
            batch: Observations by name, each of the exported shape. Other names are ignored.
            noise: The random draws: one array, `[draws, B, T, Da]`, or a list of one for each noise input of the card.
            generator: Where draws come from if `noise` is not given.

        Returns:
            The action chunk, `[B, T, Da]`.

        Raises:
            MismatchError: An input is missing or has another shape.
        """
        arrays = [self._taken_in(port, batch) for port in self.card.inputs]
        chunk = restored(self._runner([*arrays, *self._noise(noise, generator)]), self._scaling.get("action"))
        return _like(batch[self.card.inputs[0].name], chunk)

    def select_action(self, batch: Mapping[str, Any], noise: Any = None, generator: Any = None) -> Any:
        """Take one observation and return one action, `[B, Da]`; every Ta-th call predicts a new chunk.

        Args:
            batch: Observations of one control step, without the axis of observation steps.
            noise: See `predict_action_chunk`.
            generator: See `predict_action_chunk`.
        """
        window = {port.name: self._remembered(port, batch) for port in self.card.inputs}
        if not self._queue:
            chunk = self.predict_action_chunk(window, noise, generator)
            self._queue.extend(chunk[:, step] for step in range(min(self.card.n_action_steps, chunk.shape[1])))
        return _like(batch[self.card.inputs[0].name], self._queue.popleft())

    def _remembered(self, port: Port, batch: Mapping[str, Any]) -> Array:
        """The last observations of one input; at the start of an episode the first one is repeated."""
        if port.name not in batch:
            raise MismatchError(f"{port.name}: is missing from the observation, which has {', '.join(batch)}")
        newest = contiguous(batch[port.name], port.dtype)
        if not port.has_window:
            return newest
        newest = newest.copy()  # a robot may reuse its buffer for the next observation
        past = self._past.setdefault(port.name, deque(maxlen=port.shape[1]))
        past.extend([newest] * (1 if past else port.shape[1]))
        return np.stack(past, axis=1)

    def _taken_in(self, port: Port, batch: Mapping[str, Any]) -> Array:
        if port.name not in batch:
            raise MismatchError(f"{port.name}: is missing from the observation, which has {', '.join(batch)}")
        array = contiguous(batch[port.name], port.dtype)
        if array.shape != port.shape:
            raise MismatchError(
                f"{port.name}: the export takes {list(port.shape)}, got {list(array.shape)}. Shapes are fixed; export "
                "again with a batch of this shape: bac.export(policy, batch, folder)"
            )
        return normalised(array, self._scaling.get(port.name))

    def _noise(self, given: Any, generator: Any) -> list[Array]:
        if given is None:
            return self.draw(generator)
        draws = given if isinstance(given, (list, tuple)) else [given]
        arrays = [contiguous(array, one.dtype) for array, one in zip(draws, self.card.noise, strict=False)]
        found, wanted = [a.shape for a in arrays], [one.shape for one in self.card.noise]
        if len(draws) != len(self.card.noise) or found != wanted:
            raise MismatchError(f"noise: the export takes {wanted}, got {found}; leave it out, or take policy.draw()")
        return arrays


def _like(example: Any, values: Any) -> Any:
    """The values as a tensor if the caller works with tensors."""
    if type(example).__module__.partition(".")[0] != "torch" or not isinstance(values, np.ndarray):
        return values
    torch: Any = importlib.import_module("torch")
    return torch.from_numpy(np.ascontiguousarray(values))
