"""The three ways to run an exported file. Each takes and returns NumPy arrays; packages are imported when needed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bac.errors import BacError, FileError, MismatchError
from bac.exported.card import CARD_NAME, MAKE, Card
from bac.exported.metadata import metadata
from bac.exported.ports import Noise, Port
from bac.files import brief

Array = npt.NDArray[Any]
Runner = Callable[[Sequence[Array]], Array]

PROGRAM, COMPILED, ONNX = "program.pt2", "compiled.pt2", "policy.onnx"
_OF_ONNX = {"float": "float32", "double": "float64"}  # where its name of a dtype differs from NumPy's


def open_file(path: Path, card: Card, *, num_threads: int | None = None) -> Runner:
    """Load an exported file.

    Args:
        path: One of the three.
        num_threads: Threads for onnxruntime; PyTorch has a setting of its own (``torch.set_num_threads``).

    Raises:
        BacError: The package that runs it is missing.
        FileError: It cannot be loaded.
        MismatchError: It takes other inputs than the card says.
    """
    opens = {PROGRAM: _program, COMPILED: _compiled, ONNX: _onnx}[path.name]
    try:
        return opens(path, card, num_threads)
    except ModuleNotFoundError as error:
        install = "pip install onnxruntime" if path.name == ONNX else "pip install torch"
        raise BacError(f"{path}: running it needs {error.name}: {install}") from error
    except BacError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise FileError(
            f"{path}: cannot be loaded on this machine ({brief(error)}). A compiled file runs where it was made, or on "
            "the same kind of processor with the same PyTorch; export again there"
        ) from error


def _program(path: Path, card: Card, _: int | None) -> Runner:
    torch: Any = importlib.import_module("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about the memory that it reads weights from
        program: Any = torch.export.load(path)
        module = program.module()
    names = program.graph_signature.user_inputs
    given = {node.name: node.meta["val"] for node in program.graph.nodes if node.name in names}
    _check_inputs(path, card, [(str(given[name].dtype).removeprefix("torch."), given[name].shape) for name in names])
    return _on_torch(torch, module, card)


def _compiled(path: Path, card: Card, _: int | None) -> Runner:
    torch: Any = importlib.import_module("torch")
    inductor: Any = importlib.import_module("torch._inductor")
    package = inductor.aoti_load_package(str(path))
    told = {name: text for name, text in package.loader.get_metadata().items() if name.startswith("bac.")}
    if told != (wanted := metadata(card.inputs, card.noise, card.scaling)):
        raise _other_than_card(path, *_differing(told, wanted))
    return _on_torch(torch, package, card)


def _on_torch(torch: Any, module: Callable[..., Any], card: Card) -> Runner:
    def run(arrays: Sequence[Array]) -> Array:
        with torch.inference_mode():
            tensors = [torch.from_numpy(array).to(card.device) for array in arrays]
            result = module(*tensors)
            chunk = result[0] if isinstance(result, (tuple, list)) else result
            array: Array = chunk.cpu().numpy()
            return array

    return run


def _onnx(path: Path, card: Card, num_threads: int | None) -> Runner:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    wanted = ["CUDAExecutionProvider"] if card.device == "cuda" else []
    providers = [name for name in wanted if name in runtime.get_available_providers()] + ["CPUExecutionProvider"]
    session = runtime.InferenceSession(str(path), options, providers=providers)
    _check_inputs(path, card, [(_dtype_of(given.type), given.shape) for given in session.get_inputs()])
    names = [given.name for given in session.get_inputs()]
    outputs = [session.get_outputs()[0].name]

    def run(arrays: Sequence[Array]) -> Array:
        array: Array = session.run(outputs, dict(zip(names, arrays, strict=True)))[0]
        return array

    return run


def _dtype_of(onnx: str) -> str:
    """NumPy's name of ``tensor(float)``."""
    name = onnx.removeprefix("tensor(").removesuffix(")")
    return _OF_ONNX.get(name, name)


def _check_inputs(path: Path, card: Card, takes: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Check dtypes and shapes that a file takes, in order, against the card: a wrong one may crash compiled code."""
    said: list[Port | Noise] = [*card.inputs, *card.noise]
    found = [f"{dtype} {list(shape)}" for dtype, shape in takes]
    wanted = [f"{one.dtype} {list(one.shape)}" for one in said]
    if found != wanted:
        raise _other_than_card(path, ", ".join(found), ", ".join(wanted))


def _differing(told: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[str, str]:
    """The first entry in which two sets of metadata differ."""
    name = min(name for name in {*told, *wanted} if told.get(name) != wanted.get(name))
    return f"{name} {told.get(name)}", f"{name} {wanted.get(name)}"


def _other_than_card(path: Path, found: str, wanted: str) -> MismatchError:
    return MismatchError(f"{path}: takes {brief(found)}, where {CARD_NAME} says {brief(wanted)}. Export again: {MAKE}")


def contiguous(array: Any, dtype: str) -> Array:
    """An array, from whatever came, in the dtype and the layout that compiled code expects."""
    if type(array).__module__.partition(".")[0] == "torch":
        array = array.detach().cpu().numpy()
    return np.ascontiguousarray(array, dtype=dtype)
