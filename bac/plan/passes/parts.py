"""Joins of one tensor are copies. Caches begin empty, and their first join has one part that holds anything.

Inductor (PyTorch 2.11) merges a join of joins wrongly if a part is an empty tensor of one dimension.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten


def drop_empty_parts(program: Program) -> Program:
    """Leave out parts of a `cat` that hold nothing. A join of one part becomes a copy."""
    return program.with_instructions(_without(program, instruction) for instruction in program.instructions)


def _without(program: Program, instruction: Instruction) -> Instruction:
    if instruction.operator != aten.cat.default or not isinstance(instruction.args[0], tuple):
        return instruction
    parts, *dim = instruction.args
    full = tuple(part for part in parts if _holds_something(program, part))
    if len(full) > 1:
        return replace(instruction, args=(full, *dim))
    if len(full) == 1:
        options = (("memory_format", torch.contiguous_format),)
        return replace(instruction, operator=aten.clone.default, args=full, options=options)
    return instruction


def _holds_something(program: Program, part: Ref) -> bool:
    meta = program.meta.get(part.value)
    shape = meta.shape if meta is not None else program.constants[part.value].shape
    return 0 not in shape
