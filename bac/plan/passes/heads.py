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
from bac.plan.passes.trial import random_numbers
from bac.plan.program import Instruction, Program, Ref, substitute

aten = torch.ops.aten

_ATTENTION = aten.scaled_dot_product_attention.default


@dataclass(frozen=True, eq=False)
class Wide:
    """A self-attention between its two products, and the addition after them.

    Attributes:
        total: The addition.
        kept: The residual stream.
        packed: The product that makes queries, keys and values.
        attention: The attention.
        result: The product after it.
        columns: Output of `packed` that is element (head, i) of queries, keys and values, `[3, H, D]`.
        result_columns: Input of `result` that is element (head, i) of the attention's output, `[H, D]`.
    """

    total: Instruction
    kept: int
    packed: Instruction
    attention: Instruction
    result: Instruction
    columns: Tensor
    result_columns: Tensor

    @property
    def weights(self) -> tuple[int, ...]:
        return (*self.packed.inputs[1:], *self.result.inputs[1:])


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
        attended, places = self._origin(result.inputs[0])
        attention = self.producers.get(attended)
        if attention is None or not self._is_plain(attention):
            return None
        _, num_heads, num_tokens, size = meta[attended].shape
        origins = [self._origin(value) for value in attention.inputs[:3]]
        packed = self.producers.get(origins[0][0])
        if len({value for value, _ in origins}) != 1 or packed is None or not is_projection(self.program, packed):
            return None
        if len(packed.inputs) != 3 or any(meta[v].shape != meta[attended].shape for v in attention.inputs[:3]):
            return None
        width = meta[packed.outputs[0]].shape[-1]
        columns = torch.stack([found[0] for _, found in origins])  # [3, H, T, D]
        rows = torch.arange(num_tokens)[:, None] * width
        # Token n is row n of the packed product, and of the attention's result.
        if not torch.equal(columns, columns[:, :, :1] + rows) or int(columns[:, :, 0].max()) >= width:
            return None
        result_columns = _columns_back(places, num_heads, num_tokens, size)
        return None if result_columns is None else Wide(
            total, kept, packed, attention, result, columns[:, :, 0], result_columns
        )  # fmt: skip

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

    def _is_plain(self, attention: Instruction) -> bool:
        """Whether it is softmax attention of one sample without dropout, and its mask, if any, a constant."""
        if attention.operator != _ATTENTION or {name for name, _ in attention.options} - {"scale"}:
            return False
        masks = attention.inputs[3:]
        extra = [argument for argument in attention.args[3:] if not isinstance(argument, Ref)]
        constant = all(mask in self.program.constants for mask in masks)
        return not any(extra) and constant and self.program.meta[attention.outputs[0]].shape[0] == 1


def _columns_back(places: Tensor, num_heads: int, num_tokens: int, size: int) -> Tensor | None:
    """Column `[H, D]` of element (head, i) of the attention's output in rows; None if rows are not tokens."""
    places = places.reshape(num_tokens, -1)
    if places.shape[1] != num_heads * size:
        return None
    head, token, inner = places // (num_tokens * size), places // size % num_tokens, places % size
    columns = torch.empty(num_heads, size, dtype=torch.int64)
    columns[head[0], inner[0]] = torch.arange(num_heads * size)
    same = torch.equal(head, head[:1].expand_as(head)) and torch.equal(inner, inner[:1].expand_as(inner))
    return columns if same and torch.equal(token, torch.arange(num_tokens)[:, None].expand_as(token)) else None


class _Writer:
    def __init__(self, program: Program) -> None:
        self.emitter = Emitter(program)
        self._constants: dict[Hashable, tuple[Ref, ...]] = {}
        self._strides: dict[Hashable, tuple[int, ...]] = {}

    def write(self, site: Wide) -> None:
        """Emit the instructions that replace a site."""
        emit, meta = self.emitter.emit, self.emitter.meta
        num_tokens = meta[site.attention.outputs[0]].shape[2]
        packed, offset, after = self._weights(site, num_tokens)
        num_heads, size = site.result_columns.shape
        wide = size + _extra(self.emitter.constants[site.weights[0]])
        rows = emit(aten.reshape.default, Ref(site.packed.inputs[0]), (num_tokens, -1))
        both = emit(aten.linear.default, rows, packed, offset)
        strides = (num_tokens * 3 * num_heads * wide, wide, 3 * num_heads * wide, 1)
        parts = [
            emit(aten.as_strided.default, both, (1, num_heads, num_tokens, wide), strides, kind * num_heads * wide)
            for kind in range(3)
        ]
        scale = dict(site.attention.options).get("scale") or 1 / sqrt(size)
        extra = site.attention.args[3:]
        attended = emit(_ATTENTION, *parts, *extra, scale=scale)
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
        key = given[0].shape, site.attention.args[3:], scale
        if key not in self._strides:
            numbers = random_numbers(given[0], torch.Generator().manual_seed(0))
            extra = substitute(site.attention.args[3:], self.emitter.constants.__getitem__)
            self._strides[key] = _ATTENTION(numbers, numbers, numbers, *extra, scale=scale).stride()
        return self._strides[key]

    def _weights(self, site: Wide, rows: int) -> tuple[Ref, ...]:
        """The packed weight and bias with more columns per head, and the weight after the attention, as constants."""
        if site.weights not in self._constants:
            packed, offset, result, bias = (self.emitter.constants[value] for value in site.weights)
            num_heads, size = site.result_columns.shape
            wide = size + _extra(packed)
            first = packed.new_zeros(3, num_heads, wide, packed.shape[1])
            first[:, :, :size] = packed[site.columns]
            shift = offset.new_zeros(3, num_heads, wide)
            shift[:, :, :size] = offset[site.columns]
            shift[2, :, size] = 1
            last = result.new_zeros(len(result), num_heads, wide)
            last[:, :, :size] = result[:, site.result_columns]
            last[:, 0, size] = bias
            made = (first.flatten(0, 2), shift.flatten(), transposed(last.flatten(1), rows))
            self._constants[site.weights] = tuple(map(self.emitter.constant, made))
        return self._constants[site.weights]


def _extra(weight: Tensor) -> int:
    """Columns to add to a head: attention kernels of GPUs take multiples of eight."""
    return 8 if weight.device.type == "cuda" else 1
