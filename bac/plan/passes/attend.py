"""Lets attention read its queries, keys and values where a product wrote them.

``nn.MultiheadAttention`` packs the three and copies them, so that each lies on its own. The attention kernels read any
rows with a stride, so the copy only costs a kernel. Each layout is tried on random numbers; the copy goes if the
attention keeps every bit, and its result the same layout.

Exact.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch
from torch import Tensor

from bac.plan.passes.emit import producers_of
from bac.plan.passes.trial import random_numbers
from bac.plan.program import Instruction, Meta, Program, Ref, rename, substitute

aten = torch.ops.aten

_ATTENTION = aten.scaled_dot_product_attention.default
_COPIES = (aten.contiguous.default, aten.clone.default)


def attend_in_place(program: Program) -> Program:
    """Read the original of a copy wherever a view of the copy goes into an attention."""
    producers = producers_of(program)
    fresh, meta = program.fresh_values(), dict(program.meta)
    known: dict[int, int] = {}
    tried: dict[Hashable, bool] = {}
    kept: list[Instruction] = []
    for instruction in program.instructions:
        if instruction.operator == _ATTENTION:
            found = {
                v: layout for v in instruction.inputs[:3] if (layout := _layout(program, producers, v)) is not None
            }
            if found and _keeps_bits(program, instruction, found, tried):
                for value in (value for value in found if value not in known):
                    known[value] = new = next(fresh)
                    meta[new] = its = found[value]
                    args = (Ref(its.root), its.shape, its.stride, its.offset)
                    kept.append(Instruction(aten.as_strided.default, args, (), (new,)))
                instruction = rename(instruction, {value: known[value] for value in found})
        kept.append(instruction)
    return replace(program, meta=meta).with_instructions(kept)


def _layout(program: Program, producers: dict[int, Instruction], value: int) -> Meta | None:
    """Where a view of a copy lies in the memory of the copy's original; None if it is no such view, or in no order."""
    its = program.meta.get(value)
    copy = producers.get(its.root) if its is not None else None
    if its is None or copy is None or copy.operator not in _COPIES or copy.inputs[0] not in program.meta:
        return None
    source = program.meta[copy.inputs[0]]
    if source.root not in producers or source.dtype != its.dtype or source.dtype != program.meta[source.root].dtype:
        return None  # the caller decides where an argument lies in its memory
    places = torch.empty(_span(program.meta[its.root]), dtype=torch.int64)
    _seen(places, program.meta[its.root]).copy_(_seen(torch.arange(_span(source)), source))
    places = _seen(places, its)
    first = (0,) * places.dim()
    stride = tuple(
        int(places[(*first[:dim], 1, *first[dim + 1 :])] - places[first]) if size > 1 else its.stride[dim]
        for dim, size in enumerate(places.shape)
    )
    found = replace(its, stride=stride, offset=int(places[first]), root=source.root)
    in_order = stride[-1] == 1 and min(stride) >= 0 and torch.equal(places, _seen(torch.arange(_span(found)), found))
    return found if in_order else None


def _keeps_bits(program: Program, attention: Instruction, found: dict[int, Meta], tried: dict[Hashable, bool]) -> bool:
    """Whether the attention gives the same bits in the same layout if it reads the values of `found` there."""
    values = attention.inputs
    layouts = tuple((meta.shape, meta.stride, meta.offset, meta.dtype) for meta in (program.meta[v] for v in values))
    new = tuple((values.index(value), meta.stride, meta.offset) for value, meta in found.items())
    masks = tuple(value for value in values[3:] if value in program.constants)
    key = (layouts, new, masks, attention.options, tuple(a for a in attention.args if not isinstance(a, Ref)))
    if key not in tried:
        generator = torch.Generator().manual_seed(0)
        numbers = {value: program.constants[value] for value in masks}
        numbers |= {v: random_numbers(program.meta[v], generator) for v in values if v not in numbers}
        moved = {value: _seen(torch.zeros_like(_memory(meta, numbers[value])), meta) for value, meta in found.items()}
        for value, tensor in moved.items():
            tensor.copy_(numbers[value])
        before, after = (_attend(attention, given) for given in (numbers, numbers | moved))
        tried[key] = before.stride() == after.stride() and torch.equal(before, after)
    return tried[key]


def _attend(attention: Instruction, numbers: dict[int, Tensor]) -> Tensor:
    args, options = substitute((attention.args, attention.options), numbers.__getitem__)
    result: Tensor = attention.operator(*args, **dict(options))
    return result


def _memory(meta: Meta, like: Tensor) -> Tensor:
    return like.new_empty(_span(meta))


def _span(meta: Meta) -> int:
    """Elements of memory up to the last one that a value holds."""
    return meta.offset + 1 + sum((size - 1) * stride for size, stride in zip(meta.shape, meta.stride, strict=True))


def _seen(memory: Tensor, meta: Meta) -> Tensor:
    return memory.as_strided(meta.shape, meta.stride, meta.offset)
