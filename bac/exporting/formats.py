"""Writes a program in a format: one function for each, all with the same arguments."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bac.errors import BacError
from bac.exported.runners import COMPILED, ONNX, PROGRAM
from bac.exporting.onnx_graph import write_graph
from bac.exporting.portable import exported, quietly
from bac.exporting.vocabulary import vocabulary
from bac.files import brief
from bac.plan.program import Program

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# For each operator, for ONNX each distinct one: the most of results/export, measured on one busy core.
_SECONDS = {PROGRAM: 0.018, COMPILED: 0.10, ONNX: 0.15}


@dataclass
class Written:
    """What a format wrote.

    Attributes:
        files: File to the time that it took to make [s]; each can be run by itself.
    """

    files: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Take the time of what makes a file."""
        started = time.perf_counter()
        yield
        self.files[name] = time.perf_counter() - started


def check(format: str, *, compile: bool) -> None:
    """Look for what a format needs, before minutes of work.

    Raises:
        BacError: The format is unknown, or a package or the compiler is missing.
    """
    if format not in FORMATS:
        raise BacError(f"format: must be {' or '.join(FORMATS)}, got {format!r}")
    if format == "onnx":
        for name in _ONNX_PACKAGES:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                raise BacError(
                    f"format: onnx needs the package {name}: pip install '.[export]' in the clone"
                ) from error
    if format == "pt2" and compile:
        _check_compiler()


def expectation(format: str, exact: Program, fast: Program, *, compile: bool) -> str:
    """What an export will write, and about how long that takes; told before it begins."""
    programs = {ONNX: fast} if format == "onnx" else {PROGRAM: exact} | ({COMPILED: fast} if compile else {})
    parts = []
    for name, program in programs.items():
        counted = vocabulary(program).program if name == ONNX else program
        minutes = max(1, round(_SECONDS[name] * len(counted.instructions) / 60))
        parts.append(f"{name} ({len(program.instructions):,} operators, about {minutes} min)")
    return f"writing {', '.join(parts)}, and checking it"


def _check_compiler() -> None:
    builder: Any = importlib.import_module("torch._inductor.cpp_builder")
    try:
        builder.get_cpp_compiler()
    except Exception as error:  # PyTorch's own class, which moved between versions
        raise BacError(
            "compile: AOTInductor needs a C++ compiler, and none was found; install one (apt-get install g++), name "
            "it (CXX=/path/to/g++), or leave the compiled package out: compile=False, --no-compile"
        ) from error


def write_pt2(
    exact: Program,
    fast: Program,
    arguments: Mapping[str, Tensor],
    folder: Path,
    *,
    compile: bool,
    metadata: Mapping[str, str],
) -> Written:
    """Write ``program.pt2``, and ``compiled.pt2`` if `compile`.

    Args:
        exact: The run, without draws. ``program.pt2`` holds it as it is.
        fast: The same with roundings in another order. A compiler changes them anyway, so it gets this one.
        arguments: Inputs in order: name to an example.
        folder: Where to write.
        compile: Compile with AOTInductor for this machine, which takes minutes.
        metadata: What the compiled package tells of itself.

    Raises:
        BacError: The compiler failed.
    """
    written = Written()
    with written.timing(PROGRAM), quietly():
        torch.export.save(exported(exact, list(arguments.values())), folder / PROGRAM)
    if compile:
        with written.timing(COMPILED), quietly():
            _compile(exported(fast, list(arguments.values())), folder / COMPILED, metadata)
    return written


def _compile(made: Any, path: Path, metadata: Mapping[str, str]) -> None:
    inductor: Any = importlib.import_module("torch._inductor")
    try:
        with quietly(), torch.no_grad():
            options = {"aot_inductor.metadata": dict(metadata)}
            inductor.aoti_compile_and_package(made, package_path=str(path), inductor_configs=options)
    except RuntimeError as error:
        raise BacError(
            f"compile: AOTInductor failed ({brief(error)}); leave the compiled package out: compile=False, --no-compile"
        ) from error


def write_onnx(
    exact: Program,
    fast: Program,
    arguments: Mapping[str, Tensor],
    folder: Path,
    *,
    compile: bool,
    metadata: Mapping[str, str],
) -> Written:
    """Write ``policy.onnx``, with its weights beside it if they are above 2 GB.

    Args:
        exact: Ignored, because no other runtime rounds as PyTorch does.
        fast: The run, without draws.
        arguments: Inputs in order: name to an example.
        folder: Where to write.
        compile: Ignored; whatever runs the file compiles it.
        metadata: Ignored; the names are in the file.

    Raises:
        BacError: An operator has no counterpart in ONNX.
    """
    written = Written()
    with written.timing(ONNX):
        try:
            write_graph(fast, arguments, folder / ONNX)
        except (RuntimeError, ValueError) as error:
            why = brief(_first_cause(error))
            raise BacError(f"format: torch.onnx cannot write this run ({why}); take pt2: --format pt2") from error
    return written


def _first_cause(error: BaseException) -> BaseException:
    """What went wrong at first: the exceptions above it give general advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


FORMATS = {"pt2": write_pt2, "onnx": write_onnx}
