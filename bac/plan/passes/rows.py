"""Normalises a matrix as it is, not a view of it.

The products around a norm work on rows, so the norm is handed a view with the batch's dimensions, and its result is
viewed as rows again. A norm treats every row alone; it gives the same bits for the same rows in any shape.

Exact.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Instruction, Meta, Program, Ref

aten = torch.ops.aten


def normalise_rows(program: Program) -> Program:
    """Let a norm read the rows that it is given a view of, if its result is only viewed, too."""
    producers = {value: i for i in program.instructions for value in i.outputs}
    only_viewed = _only_viewed(program)
    fresh, meta = program.fresh_values(), dict(program.meta)
    kept: list[Instruction] = []
    for instruction in program.instructions:
        value = instruction.outputs[0]
        rows = _rows(program, instruction)
        if rows is None or rows not in producers or value not in only_viewed:
            kept.append(instruction)
            continue
        new, shape = next(fresh), program.meta[rows].shape
        meta[new] = replace(program.meta[rows], root=new)
        for view, its in program.meta.items():
            if its.root == value:
                meta[view] = replace(its, root=new)
        kept.append(replace(instruction, args=(Ref(rows), *instruction.args[1:]), outputs=(new,)))
        args = Ref(new), program.meta[value].shape
        kept.append(Instruction(aten.view.default, args, (), (value,)))
        assert torch.Size(shape).numel() == torch.Size(program.meta[value].shape).numel()
    return replace(program, meta=meta).with_instructions(kept)


def _rows(program: Program, norm: Instruction) -> int | None:
    """The matrix of which a norm over the last dimension reads a view row by row; None if it reads no such view."""
    if norm.operator != aten.layer_norm.default or len(norm.args[1]) != 1:
        return None
    given = program.meta[norm.inputs[0]]
    rows, result = program.meta.get(given.root), program.meta[norm.outputs[0]]
    if rows is None or given.root == norm.inputs[0] or len(rows.shape) != 2 or rows.shape[-1] != given.shape[-1]:
        return None
    whole = given.offset == rows.offset == 0 and torch.Size(rows.shape).numel() == torch.Size(given.shape).numel()
    dense = all(_is_dense(meta) for meta in (given, rows, result))
    return given.root if whole and dense and given.dtype == rows.dtype == result.dtype else None


def _only_viewed(program: Program) -> set[int]:
    """Results that nothing reads but views, and that are not returned."""
    read = set(program.outputs)
    for instruction in program.instructions:
        if not program.is_view(instruction):
            read.update(instruction.inputs)
    return {value for i in program.instructions for value in i.outputs if value not in read}


def _is_dense(meta: Meta) -> bool:
    dense = torch.empty(meta.shape, device="meta").stride()
    return all(n == 1 or a == b for n, a, b in zip(meta.shape, meta.stride, dense, strict=True))
