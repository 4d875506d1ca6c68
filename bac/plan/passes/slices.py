"""Writes a write into a slice as such, for runtimes that know no strides.

The tape records ``x[..., :n] = y`` as `as_strided_scatter`, which holds for any view. Most writes go to a slice along
one dimension of a tensor in row-major order; for those, `slice_scatter` is the same.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Instruction, Meta, Program, Ref

aten = torch.ops.aten


def write_slices(program: Program) -> Program:
    """Replace `as_strided_scatter` by `slice_scatter` where a slice along one dimension is written."""
    return program.with_instructions(_as_slice(program, instruction) for instruction in program.instructions)


def _as_slice(program: Program, instruction: Instruction) -> Instruction:
    if instruction.operator != aten.as_strided_scatter.default or len(instruction.args) != 5:
        return instruction
    target, written, shape, stride, offset = instruction.args
    found = _slice_of(program.meta[target.value], tuple(shape), tuple(stride), offset)
    if found is None:
        return instruction
    dim, start = found
    args = (Ref(target.value), Ref(written.value), dim, start, start + shape[dim])
    return replace(instruction, operator=aten.slice_scatter.default, args=args)


def _slice_of(whole: Meta, shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> tuple[int, int] | None:
    """Dimension and first index of a slice of a tensor; None if the view is no slice along one dimension."""
    differing = [dim for dim, (part, size) in enumerate(zip(shape, whole.shape, strict=False)) if part != size]
    if len(shape) != len(whole.shape) or stride != whole.stride or whole.offset or len(differing) != 1:
        return None
    (dim,) = differing
    start, rest = divmod(offset, stride[dim])
    return (dim, start) if rest == 0 and start + shape[dim] <= whole.shape[dim] else None
