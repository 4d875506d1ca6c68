"""A long program is written as copies of its few distinct instructions."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bac.exporting import onnx_graph
from bac.exporting.vocabulary import vocabulary
from bac.plan.program import Program, interpret
from tests.bac.plan.runs import names, taped


def steps(x: Tensor) -> Tensor:
    """Seven steps that differ in their tensors, and one literal that is another."""
    for _ in range(7):
        left, right = (x * x).chunk(2, dim=-1)
        x = torch.cat((right, left + 1), dim=-1)
    return x + 2


def test_steps_that_repeat_are_a_few_kinds_of_instruction():
    program = taped(steps, torch.zeros(2, 6))
    found = vocabulary(program)
    assert names(found.program) == ["mul", "chunk", "add", "cat", "add"]
    assert [kind.name for kind in found.kinds] == names(program)
    assert len(program.instructions) == 7 * 4 + 1
    assert [tuple(example.shape) for example in found.examples] == [(2, 6)] * 3 + [(2, 3)] * 3 + [(2, 6)]


def test_a_literal_of_another_type_is_another_kind():
    program = taped(lambda x: (x + 1) * (x + 1.0) - (x + True), torch.zeros(3))
    assert names(vocabulary(program).program) == ["add", "add", "mul", "add", "sub"]


def run(path: Path, **given: Tensor) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["action"], {name: tensor.numpy() for name, tensor in given.items()})[0]


@pytest.fixture
def weighted() -> Program:
    """A program of two inputs and a constant."""
    weight = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    return taped(
        lambda x, y: torch.nn.functional.linear(x, weight) @ weight - y * y + weight, torch.zeros(2, 2),
        torch.zeros(2, 1), constants=[weight],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("largest", [1 << 31, 0])
def test_the_graph_computes_what_the_program_does(weighted, largest, tmp_path, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.setattr(onnx_graph, "_LARGEST", largest)
    given = {"x": torch.tensor([[1.0, 2.0], [3.0, 5.0]]), "y": torch.tensor([[7.0], [11.0]])}
    onnx_graph.write_graph(weighted, given, tmp_path / "a.onnx")
    assert run(tmp_path / "a.onnx", **given).tolist() == interpret(weighted, tuple(given.values()))[0].tolist()
    assert (tmp_path / "a.onnx.data").is_file() == (largest == 0)


@pytest.mark.slow
def test_results_in_several_parts_are_read_part_by_part(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    program, x = taped(steps, torch.zeros(2, 6)), torch.linspace(-1, 1, 12).reshape(2, 6)
    onnx_graph.write_graph(program, {"x": x}, tmp_path / "a.onnx")
    torch.testing.assert_close(torch.from_numpy(run(tmp_path / "a.onnx", x=x)), steps(x))


@pytest.mark.slow
def test_what_gives_only_its_shape_is_left_out(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    weight, x = torch.ones(3, 2), torch.ones(3, 2)
    program = taped(lambda x: x + torch.zeros_like(weight * x), torch.zeros(3, 2), constants=[weight])
    onnx_graph.write_graph(program, {"x": x}, tmp_path / "a.onnx")
    model = importlib.import_module("onnx").load(tmp_path / "a.onnx")
    assert "Mul" not in {node.op_type for node in model.graph.node}
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert run(tmp_path / "a.onnx", x=x).tolist() == x.tolist()
