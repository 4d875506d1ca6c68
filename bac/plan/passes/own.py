"""Lets the caller own the memory of every output."""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Instruction, Program, Ref


def own_outputs(program: Program) -> Program:
    """Copy an output that is an argument, a constant, or a view of one."""
    computed = {value for instruction in program.instructions for value in instruction.outputs}
    fresh = program.fresh_values()
    copies = {v: next(fresh) for v in program.outputs if program.meta[v].root not in computed}
    if not copies:
        return program
    meta = {copy: replace(program.meta[value], root=copy) for value, copy in copies.items()}
    clones = [Instruction(torch.ops.aten.clone.default, (Ref(value),), (), (copy,)) for value, copy in copies.items()]
    outputs = tuple(copies.get(value, value) for value in program.outputs)
    owned = replace(program, outputs=outputs, meta={**program.meta, **meta})
    return owned.with_instructions((*program.instructions, *clones))
