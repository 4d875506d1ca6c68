"""Carries the bias of a self-attention's last product in the attention itself, so that the product can add the stream.

The shares of a softmax sum to one. A value that is one at every token is one in the result, too; one more column in
every head, with one as its value, therefore carries the bias::

    h + (attend(q, k, v) W' + b)  ->  addmm(h, attend(q*, k*, v*), W*')     v* = [v, 1], q* = [q, 0], k* = [k, 0]

Queries, keys and values must come from one product with a bias, as ``nn.MultiheadAttention`` packs them.

Re-associates.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from bac.plan.passes.emit import Emitter, is_projection, origin, producers_of
from bac.plan.passes.residual import is_dense, transposed
from bac.plan.passes.selfattention import ATTENTION, SelfAttention, self_attention_before
from bac.plan.passes.trial import random_numbers
from bac.plan.program import Instruction, Program, Ref, substitute

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Wide:
    """A self-attention and the addition after it.

    Attributes:
        total: The addition.
        kept: The residual stream.
        found: The attention and its products.
    """

    total: Instruction
    kept: int
    found: SelfAttention

    @property
    def weights(self) -> tuple[int, ...]:
        return (*self.found.packed.inputs[1:], *self.found.result.inputs[1:])


def widen_heads(program: Program) -> Program:
    """Rewrite every self-attention of one sample whose last product has a bias and goes into the stream alone."""
    finder = _Finder(program)
    sites = {i.outputs[0]: site for i in program.instructions if (site := finder.find(i)) is not None}
    writer = _Writer(program)
    return writer.emitter.rewrite(sites, writer.write)


class _Finder:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.producers = producers_of(program)

    def find(self, total: Instruction) -> Wide | None:
        """The site that ends in this addition; None if there is none."""
        if total.operator != aten.add.Tensor or total.options or len(total.inputs) != 2:
            return None
        for added, kept in (total.inputs, total.inputs[::-1]):
            if (found := self._before(total, added, kept)) is not None:
                return found
        return None

    def _before(self, total: Instruction, added: int, kept: int) -> Wide | None:
        meta, constants = self.program.meta, self.program.constants
        if (
            kept in constants
            or meta[kept].shape != meta[total.outputs[0]].shape
            or not self._is_row_by_row(kept, total)
        ):
            return None
        result = self._product(added)
        if result is None or len(result.inputs) != 3 or not bool(constants[result.inputs[2]].any()):
            return None
        found = self_attention_before(self.program, self.producers, result)
        return None if found is None or len(found.packed.inputs) != 3 else Wide(total, kept, found)

    def _product(self, value: int) -> Instruction | None:
        """The product that makes a value row by row, if nothing else reads it."""
        found, places = self._origin(value)
        product = self.producers.get(found)
        uses, step = self.program.num_uses, value
        while uses[step] == 1 and step != found:
            (step,) = self.producers[step].inputs
        if uses[step] != 1:
            return None
        in_order = torch.equal(places.flatten(), torch.arange(places.numel()))
        return product if product is not None and in_order and is_projection(self.program, product) else None

    def _origin(self, value: int) -> tuple[int, Tensor]:
        return origin(self.program, self.producers, value)

    def _is_row_by_row(self, kept: int, total: Instruction) -> bool:
        meta = self.program.meta
        return is_dense(meta[kept]) and is_dense(meta[total.outputs[0]]) and meta[kept].dtype.is_floating_point


class _Writer:
    def __init__(self, program: Program) -> None:
        self.emitter = Emitter(program)
        self._constants: dict[Hashable, tuple[Ref, ...]] = {}
        self._strides: dict[Hashable, tuple[int, ...]] = {}

    def write(self, site: Wide) -> None:
        """Emit the instructions that replace a site."""
        emit, meta = self.emitter.emit, self.emitter.meta
        num_tokens = meta[site.found.attention.outputs[0]].shape[2]
        packed, offset, after = self._weights(site, num_tokens)
        num_heads, size = site.found.result_columns.shape
        wide = size + _extra(self.emitter.constants[site.weights[0]])
        rows = emit(aten.reshape.default, Ref(site.found.packed.inputs[0]), (num_tokens, -1))
        both = emit(aten.linear.default, rows, packed, offset)
        strides = (num_tokens * 3 * num_heads * wide, wide, 3 * num_heads * wide, 1)
        parts = [
            emit(aten.as_strided.default, both, (1, num_heads, num_tokens, wide), strides, kind * num_heads * wide)
            for kind in range(3)
        ]
        scale = dict(site.found.attention.options).get("scale") or 1 / sqrt(size)
        extra = site.found.attention.args[3:]
        attended = emit(ATTENTION, *parts, *extra, scale=scale)
        meta[attended.value] = replace(meta[attended.value], stride=self._written(site, scale, parts))
        tokens = emit(aten.transpose.int, attended, 1, 2)
        tokens = emit(aten.reshape.default, tokens, (num_tokens, num_heads * wide))
        output = meta[site.total.outputs[0]].shape
        kept = emit(aten.view.default, Ref(site.kept), (num_tokens, output[-1]))
        total = emit(aten.addmm.default, kept, tokens, after)
        emit(aten.view.default, total, output, output=site.total.outputs[0])

    def _written(self, site: Wide, scale: float, parts: list[Ref]) -> tuple[int, ...]:
        """Strides of the attention's result, which the kernel chooses."""
        given = [self.emitter.meta[part.value] for part in parts]
        key = given[0].shape, site.found.attention.args[3:], scale
        if key not in self._strides:
            numbers = random_numbers(given[0], torch.Generator().manual_seed(0))
            extra = substitute(site.found.attention.args[3:], self.emitter.constants.__getitem__)
            self._strides[key] = ATTENTION(numbers, numbers, numbers, *extra, scale=scale).stride()
        return self._strides[key]

    def _weights(self, site: Wide, rows: int) -> tuple[Ref, ...]:
        """The packed weight and bias with more columns per head, and the weight after the attention, as constants."""
        if site.weights not in self._constants:
            packed, offset, result, bias = (self.emitter.constants[value] for value in site.weights)
            num_heads, size = site.found.result_columns.shape
            wide = size + _extra(packed)
            first = packed.new_zeros(3, num_heads, wide, packed.shape[1])
            first[:, :, :size] = packed[site.found.columns]
            shift = offset.new_zeros(3, num_heads, wide)
            shift[:, :, :size] = offset[site.found.columns]
            shift[2, :, size] = 1
            last = result.new_zeros(len(result), num_heads, wide)
            last[:, :, :size] = result[:, site.found.result_columns]
            last[:, 0, size] = bias
            made = (first.flatten(0, 2), shift.flatten(), transposed(last.flatten(1), rows))
            self._constants[site.weights] = tuple(map(self.emitter.constant, made))
        return self._constants[site.weights]


def _extra(weight: Tensor) -> int:
    """Columns to add to a head: attention kernels of GPUs take multiples of eight."""
    return 8 if weight.device.type == "cuda" else 1
