"""Evaluates a fully reused step in the dimensions of the action.

At a step where every block is reused, the denoiser is the embedding of the noisy actions x, a stored sum C, and the
head::

    eps = LayerNorm(C + x W + b) Wh + bh

With columns centred over the E features (W_c, Wh_c), a LayerNorm is a division by a quadratic form of x::

    eps = (P + x Q) / sqrt(a + x . (m + x G)) + b'      Q = W_c Wh_c,  G = W_c W_c' / E,  b' = beta Wh + bh
    P = (C + b) Wh_c,  m = 2 (C + b) W_c' / E,  a = var(C + b) + LayerNorm's eps

Q, G and b' are constants of the policy; P, m and a are computed once per run of reused steps. The step itself no longer
works in E dimensions.

Re-associates.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from bac.plan.passes.emit import Emitter, is_projection, producers_of
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten

_MIN_STEPS = 3  # P, m and a do not pay if their stored sum serves fewer steps


@dataclass(frozen=True)
class ReusedStep:
    """A step that ends in a head on the norm of a sum with one embedding in it.

    Attributes:
        head: The last product.
        norm: The LayerNorm before it.
        embedding: The product that embeds the noisy actions.
        stored: The other addends, in order; their sum is C.
    """

    head: Instruction
    norm: Instruction
    embedding: Instruction
    stored: tuple[int, ...]

    @property
    def run(self) -> tuple[object, ...]:
        """The key of steps that share P, m and a."""
        return self.stored, self.embedding.inputs[1:], self.norm.args[1:], self.head.inputs[1:]


def close_reused_steps(program: Program) -> Program:
    """Rewrite steps that share their stored sum with enough others."""
    finder = _Finder(program)
    sites = {i.outputs[0]: site for i in program.instructions if (site := finder.find(i)) is not None}
    lengths = Counter(site.run for site in sites.values())
    worth = {value: site for value, site in sites.items() if lengths[site.run] >= _MIN_STEPS}
    writer = _Writer(program)
    return writer.emitter.rewrite(worth, writer.write)


class _Finder:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.producers = producers_of(program)

    def find(self, head: Instruction) -> ReusedStep | None:
        """The step that ends in this product; None if there is none."""
        if not is_projection(self.program, head):
            return None
        norm = self.producers.get(head.inputs[0])
        if norm is None or norm.operator != aten.layer_norm.default or len(norm.args[1]) != 1:
            return None
        if any(value not in self.program.constants for value in norm.inputs[1:]):
            return None
        addends = self._addends(norm.inputs[0])
        small = [value for value in addends if self._is_small(value, head)]
        if len(small) != 1 or len(addends) < 2:
            return None
        shape = self.program.meta[norm.inputs[0]].shape
        stored = tuple(value for value in addends if value != small[0])
        if any(self.program.meta[value].shape != shape for value in stored):
            return None
        return ReusedStep(head, norm, self.producers[small[0]], stored)

    def _addends(self, value: int) -> list[int]:
        """The addends of a sum. A partial sum that serves anything else counts as one addend."""
        instruction = self.producers.get(value)
        plain = instruction is not None and instruction.operator == aten.add.Tensor and not instruction.options
        if instruction is None or not plain or len(instruction.inputs) != 2 or self.program.num_uses[value] > 1:
            return [value]
        return [addend for part in instruction.inputs for addend in self._addends(part)]

    def _is_small(self, value: int, head: Instruction) -> bool:
        """Whether the value embeds few features, and the head returns few."""
        instruction = self.producers.get(value)
        if instruction is None or not is_projection(self.program, instruction) or self.program.num_uses[value] > 1:
            return False
        constants = self.program.constants
        features, inputs = constants[instruction.inputs[1]].shape
        return 2 * (inputs + constants[head.inputs[1]].shape[0]) < features


class _Writer:
    def __init__(self, program: Program) -> None:
        self.emitter = Emitter(program)
        self._runs: dict[object, tuple[Ref, Ref]] = {}
        self._policies: dict[object, tuple[Ref, ...]] = {}

    def write(self, site: ReusedStep) -> None:
        """Emit the instructions that replace a step."""
        emit, meta = self.emitter.emit, self.emitter.meta
        first, second, matrix, _, bias = self._of_policy(site)
        if site.run not in self._runs:
            self._runs[site.run] = self._of_run(site, first, second)
        offsets, variance = self._runs[site.run]
        output = meta[site.head.outputs[0]]
        num_inputs, num_outputs = meta[site.embedding.inputs[0]].shape[-1], output.shape[-1]
        rows = torch.Size(output.shape[:-1]).numel()
        actions = emit(aten.reshape.default, Ref(site.embedding.inputs[0]), (rows, num_inputs))
        both = emit(aten.addmm.default, offsets, actions, matrix)
        numerator = emit(aten.view.default, emit(aten.slice.Tensor, both, 1, 0, num_outputs), output.shape)
        slope = emit(aten.slice.Tensor, both, 1, num_outputs, num_outputs + num_inputs)
        slope, column = emit(aten.unsqueeze.default, slope, 1), emit(aten.unsqueeze.default, actions, 2)
        squares = emit(aten.baddbmm.default, variance, slope, column)
        shrink = emit(aten.view.default, emit(aten.rsqrt.default, squares), (*output.shape[:-1], 1))
        emit(aten.addcmul.default, bias, numerator, shrink, output=site.head.outputs[0])

    def _of_policy(self, site: ReusedStep) -> tuple[Ref, ...]:
        """Constants: the matrix that maps C to [P, m], its offset, [Q, G], b, b'."""
        key = site.run[1:]
        if key not in self._policies:
            self._policies[key] = tuple(map(self.emitter.constant, _constants(site, self.emitter.constants)))
        return self._policies[key]

    def _of_run(self, site: ReusedStep, weight: Ref, offset: Ref) -> tuple[Ref, Ref]:
        """[P, m], `[rows, outputs + inputs]`, and a, `[rows, 1, 1]`."""
        emit = self.emitter.emit
        stored = Ref(site.stored[0])
        for value in site.stored[1:]:
            stored = emit(aten.add.Tensor, stored, Ref(value))
        features = self.emitter.meta[stored.value].shape[-1]
        stored = emit(aten.reshape.default, stored, (-1, features))
        offsets = emit(aten.linear.default, stored, weight, offset)
        embedding_bias = self._of_policy(site)[3]
        whole = emit(aten.add.Tensor, stored, embedding_bias)
        variance = emit(aten.var.correction, whole, (1,), correction=0, keepdim=True)
        eps = float(site.norm.args[4]) if len(site.norm.args) > 4 else 1e-5
        variance = emit(aten.add.Tensor, variance, eps)
        return offsets, emit(aten.unsqueeze.default, variance, 2)


def _constants(site: ReusedStep, constants: dict[int, Tensor]) -> tuple[Tensor, ...]:
    """The constants of `_of_policy`, computed in float64 and rounded once."""
    embedding, *embedding_bias = (constants[value].double() for value in site.embedding.inputs[1:])  # [E, inputs]
    head, *head_bias = (constants[value].double() for value in site.head.inputs[1:])  # [outputs, E]
    gain, *shift = [constants[value].double() for value in site.norm.inputs[1:]] or [head.new_ones(head.shape[1])]
    features = embedding.shape[0]
    centred = embedding - embedding.mean(0)
    scaled = head * gain
    scaled = scaled - scaled.mean(1, keepdim=True)
    first = torch.cat([scaled, 2 / features * centred.T])
    bias = embedding_bias[0] if embedding_bias else embedding.new_zeros(features)
    matrix = torch.cat([centred.T @ scaled.T, centred.T @ centred / features], dim=1)
    last = sum(head_bias, start=head @ shift[0] if shift else head.new_zeros(len(head)))
    dtype = constants[site.head.inputs[1]].dtype
    return tuple(tensor.to(dtype).contiguous() for tensor in (first, first @ bias, matrix, bias, last))
