"""Merges a chain of views into one view, and drops views that show their whole memory as it is."""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Instruction, Program, Ref, rename


def merge_views(program: Program) -> Program:
    """Replace a view of a view of a result by one `as_strided` of that result.

    The layout is the recorded one, so a reader of the view sees the same tensor, strides included. Views of arguments
    stay as they are, because the caller decides where an argument lies in its memory.
    """
    depth: dict[int, int] = {}
    computed = {value for instruction in program.instructions for value in instruction.outputs}
    merged = []
    for instruction in program.instructions:
        value = instruction.outputs[0]
        meta = program.meta[value]
        if len(instruction.outputs) == 1 and meta.root != value and meta.root in computed and _plain(program, value):
            depth[value] = 1 + max((depth.get(v, 0) for v in instruction.inputs), default=0)
            if depth[value] > 1:
                instruction = _as_strided(program, instruction, value)
        merged.append(instruction)
    return _without_identities(program.with_instructions(merged))


def _without_identities(program: Program) -> Program:
    """Read the root wherever a view of the root's own layout is read."""
    same: dict[int, int] = {}
    kept = []
    for instruction in program.instructions:
        renamed = rename(instruction, same)
        root = program.meta[renamed.outputs[0]].root
        whole = renamed.operator == torch.ops.aten.as_strided.default and renamed.args[0] == Ref(root)
        if whole and program.meta[renamed.outputs[0]] == program.meta[root]:
            same[renamed.outputs[0]] = root
            continue
        kept.append(renamed)
    outputs = tuple(same.get(value, value) for value in program.outputs)
    return replace(program, outputs=outputs).with_instructions(kept)


def _plain(program: Program, value: int) -> bool:
    """Whether the memory of its root holds the value's numbers as they are: same dtype, not conjugated lazily."""
    dtype = program.meta[value].dtype
    return dtype == program.meta[program.meta[value].root].dtype and not dtype.is_complex


def _as_strided(program: Program, instruction: Instruction, value: int) -> Instruction:
    meta = program.meta[value]
    args = (Ref(meta.root), meta.shape, meta.stride, meta.offset)
    return replace(instruction, operator=torch.ops.aten.as_strided.default, args=args, options=(), sequence=False)
