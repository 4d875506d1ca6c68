"""Recognises a self-attention between its two products, by the origin of every element: views do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bac.plan.passes.emit import is_projection, origin
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten

ATTENTION = aten.scaled_dot_product_attention.default


@dataclass(frozen=True, eq=False)
class SelfAttention:
    """A self-attention of one sample with its products.

    Attributes:
        packed: The product that makes queries, keys and values.
        attention: The attention.
        result: The product after it.
        columns: Output of `packed` that is element (head, i) of queries, keys and values, `[3, H, D]`.
        result_columns: Input of `result` that is element (head, i) of the attention's output, `[H, D]`.
    """

    packed: Instruction
    attention: Instruction
    result: Instruction
    columns: Tensor
    result_columns: Tensor


def self_attention_before(
    program: Program, producers: Mapping[int, Instruction], result: Instruction
) -> SelfAttention | None:
    """The self-attention whose output goes into a product; None if there is none."""
    meta = program.meta
    attended, places = origin(program, producers, result.inputs[0])
    attention = producers.get(attended)
    if attention is None or not _is_plain(program, attention):
        return None
    _, num_heads, num_tokens, size = meta[attended].shape
    origins = [origin(program, producers, value) for value in attention.inputs[:3]]
    packed = producers.get(origins[0][0])
    if len({value for value, _ in origins}) != 1 or packed is None or not is_projection(program, packed):
        return None
    if any(meta[v].shape != meta[attended].shape for v in attention.inputs[:3]):
        return None
    width = meta[packed.outputs[0]].shape[-1]
    columns = torch.stack([found[0] for _, found in origins])  # [3, H, T, D]
    rows = torch.arange(num_tokens)[:, None] * width
    # Token n is row n of the packed product, and of the attention's result.
    if not torch.equal(columns, columns[:, :, :1] + rows) or int(columns[:, :, 0].max()) >= width:
        return None
    back = _columns_back(places, num_heads, num_tokens, size)
    return None if back is None else SelfAttention(packed, attention, result, columns[:, :, 0], back)


def _is_plain(program: Program, attention: Instruction) -> bool:
    """Whether it is softmax attention of one sample without dropout, and its mask, if any, a constant."""
    if attention.operator != ATTENTION or {name for name, _ in attention.options} - {"scale"}:
        return False
    masks = attention.inputs[3:]
    extra = [argument for argument in attention.args[3:] if not isinstance(argument, Ref)]
    constant = all(mask in program.constants for mask in masks)
    return not any(extra) and constant and program.meta[attention.outputs[0]].shape[0] == 1


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
