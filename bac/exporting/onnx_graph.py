"""Writes a program as an ONNX graph, in a time that grows with its length and no faster.

A hundred denoising steps are 43,000 instructions of 470 kinds. torch.onnx translates one of each kind, and the graph is
made of copies. Given the whole run instead, its optimiser looks through all operators for each of them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bac.exporting.portable import exported, quietly
from bac.exporting.vocabulary import Vocabulary, vocabulary
from bac.plan.program import Instruction, Program

OPSET = 20  # the first with GELU as one operator
_LARGEST = (1 << 31) - (1 << 26)  # bytes of weights in one protobuf file: 2 GiB, less what the operators take


def write_graph(program: Program, arguments: Mapping[str, Tensor], path: Path) -> None:
    """Write a program to a file, with its weights beside it if they are above 2 GB.

    Args:
        program: A program without draws.
        arguments: Its inputs in order: name to an example.
        path: The file.

    Raises:
        RuntimeError: An operator has no counterpart in ONNX.
    """
    ir: Any = importlib.import_module("onnx_ir")
    found = vocabulary(program)
    model = _translated(found)
    graph = _Graph(found, model.graph)
    graph.begin(program, arguments)
    for instruction, kind in zip(program.instructions, found.kinds, strict=True):
        graph.append(instruction, kind)
    made = ir.Model(graph.finished(program), ir_version=model.ir_version)
    is_large = sum(tensor.numel() * tensor.element_size() for tensor in program.constants.values()) > _LARGEST
    ir.save(made, path, external_data=f"{path.name}.data" if is_large else None)


def _translated(found: Vocabulary) -> Any:
    """The ONNX model of one instruction of each kind."""
    with quietly(), _without_chatter(), torch.no_grad():
        made = torch.onnx.export(
            exported(found.program, found.examples), found.examples, dynamo=True, opset_version=OPSET, verbose=False
        )
    if made is None:
        raise RuntimeError("torch.onnx returned no program")
    if made.model.functions:
        raise RuntimeError(f"torch.onnx left functions in the graph: {', '.join(map(str, made.model.functions))}")
    return made.model


class _Graph:
    """An ONNX graph that grows instruction by instruction.

    Args:
        found: The kinds of instructions.
        translated: Their ONNX graph.
    """

    def __init__(self, found: Vocabulary, translated: Any) -> None:
        self._ir: Any = importlib.import_module("onnx_ir")
        self._reads = dict(zip(found.program.inputs, translated.inputs, strict=True))
        self._makes = dict(zip(found.program.outputs, translated.outputs, strict=True))
        self._opset_imports = dict(translated.opset_imports)
        self._snippets: dict[Instruction, list[Any]] = {}
        self._values: dict[int, Any] = {}  # by the program's values
        self._arguments: list[Any] = []
        self._initializers: dict[Any, Any] = {}  # by where they come from
        self._nodes: list[Any] = []

    def begin(self, program: Program, arguments: Mapping[str, Tensor]) -> None:
        """Take a program's inputs and constants in."""
        adapters = self._ir.tensor_adapters
        ordered = sorted(program.inputs, key=program.inputs.__getitem__)
        for value, (name, tensor) in zip(ordered, arguments.items(), strict=True):
            kind = self._ir.TensorType(adapters.from_torch_dtype(tensor.dtype))
            self._values[value] = self._ir.Value(name=name, shape=self._ir.Shape(tensor.shape), type=kind)
            self._arguments.append(self._values[value])
        for value, tensor in program.constants.items():
            self._values[value] = self._initializer(value, adapters.TorchTensor(tensor.detach().cpu().contiguous()))

    def append(self, instruction: Instruction, kind: Instruction) -> None:
        """Copy the nodes of a kind so that they read what the instruction reads."""
        reads = zip(kind.inputs, instruction.inputs, strict=True)
        new = {self._reads[its]: self._values[value] for its, value in reads}
        for node in self._snippet(kind):
            inputs = [None if given is None else self._copied(given, new) for given in node.inputs]
            copy = self._ir.Node(
                node.domain, node.op_type, inputs, node.attributes.values(), overload=node.overload,
                num_outputs=len(node.outputs), version=node.version,
            )  # fmt: skip
            new.update(zip(node.outputs, copy.outputs, strict=True))
            self._nodes.append(copy)
        for its, value in zip(kind.outputs, instruction.outputs, strict=True):
            self._values[value] = self._copied(self._makes[its], new)

    def finished(self, program: Program) -> Any:
        """The graph, whose one output is ``action``."""
        (last,) = program.outputs
        output, meta = self._values[last], program.meta[last]
        output.name, output.shape = "action", self._ir.Shape(meta.shape)
        output.type = self._ir.TensorType(self._ir.tensor_adapters.from_torch_dtype(meta.dtype))
        read, nodes = {output}, []
        for node in reversed(self._nodes):  # translations drop what only gave a shape; runtimes warn of such remains
            if not read.isdisjoint(node.outputs):
                read.update(node.inputs)
                nodes.append(node)
        initializers = [value for value in self._initializers.values() if value in read]
        return self._ir.Graph(
            self._arguments, [output], nodes=reversed(nodes), initializers=initializers,
            opset_imports=self._opset_imports, name="denoising_run",
        )  # fmt: skip

    def _snippet(self, kind: Instruction) -> list[Any]:
        """The nodes behind a kind's outputs, in order of execution."""
        if kind not in self._snippets:
            made: dict[Any, None] = {}
            for value in kind.outputs:
                _gather(self._makes[value], made)
            self._snippets[kind] = list(made)
        return self._snippets[kind]

    def _copied(self, value: Any, new: Mapping[Any, Any]) -> Any:
        """The copy of a value of a kind: made for one instruction, or a constant, which all share."""
        if value in new:
            return new[value]
        if value not in self._initializers:
            self._initializer(value, value.const_value)
        return self._initializers[value]

    def _initializer(self, key: Any, tensor: Any) -> Any:
        kind, name = self._ir.TensorType(tensor.dtype), f"constant{len(self._initializers)}"
        made = self._ir.Value(name=name, shape=tensor.shape, type=kind, const_value=tensor)
        self._initializers[key] = made
        return made


def _gather(value: Any, found: dict[Any, None]) -> None:
    """Add the nodes that a value depends on to `found`, each after those that it reads."""
    node = value.producer()
    if node is None or node in found:
        return
    for given in node.inputs:
        if given is not None:
            _gather(given, found)
    found[node] = None


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep torch.onnx from printing its progress, and onnxscript from logging every operator."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
