"""The three ways to run an exported file. Each takes and returns NumPy arrays; packages are imported when needed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bac.errors import BacError, FileError
from bac.exported.card import Card
from bac.files import brief

Array = npt.NDArray[Any]
Runner = Callable[[Sequence[Array]], Array]

PROGRAM, COMPILED, ONNX = "program.pt2", "compiled.pt2", "policy.onnx"


def open_file(path: Path, card: Card, *, num_threads: int | None = None) -> Runner:
    """Load an exported file.

    Args:
        path: One of the three.
        num_threads: Threads for onnxruntime; PyTorch has a setting of its own (``torch.set_num_threads``).

    Raises:
        BacError: The package that runs it is missing.
        FileError: It cannot be loaded.
    """
    opens = {PROGRAM: _program, COMPILED: _compiled, ONNX: _onnx}[path.name]
    try:
        return opens(path, card, num_threads)
    except ModuleNotFoundError as error:
        install = "pip install onnxruntime" if path.name == ONNX else "pip install torch"
        raise BacError(f"{path}: running it needs {error.name}: {install}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise FileError(
            f"{path}: cannot be loaded on this machine ({brief(error)}). A compiled file runs where it was made, or on "
            "the same kind of processor with the same PyTorch; export again there"
        ) from error


def _program(path: Path, card: Card, _: int | None) -> Runner:
    torch: Any = importlib.import_module("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about the memory that it reads weights from
        module = torch.export.load(path).module()
    return _on_torch(torch, module, card)


def _compiled(path: Path, card: Card, _: int | None) -> Runner:
    torch: Any = importlib.import_module("torch")
    inductor: Any = importlib.import_module("torch._inductor")
    return _on_torch(torch, inductor.aoti_load_package(str(path)), card)


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
    names = [given.name for given in session.get_inputs()]
    outputs = [session.get_outputs()[0].name]

    def run(arrays: Sequence[Array]) -> Array:
        array: Array = session.run(outputs, dict(zip(names, arrays, strict=True)))[0]
        return array

    return run


def contiguous(array: Any, dtype: str) -> Array:
    """An array, from whatever came, in the dtype and the layout that compiled code expects."""
    if type(array).__module__.partition(".")[0] == "torch":
        array = array.detach().cpu().numpy()
    return np.ascontiguousarray(array, dtype=dtype)
