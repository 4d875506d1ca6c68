"""Draws all random numbers at the beginning, so that none stands between the steps of a run.

Compiled pieces must not draw. With the draws before them, what a compiler sees is not cut at every step.

Exact: the order of the draws stays.
"""

from __future__ import annotations

from bac.plan.program import Instruction, Program


def draw_first(program: Program) -> Program:
    """Move draws to the front, up to the first that reads what the program computes."""
    computed = {value for instruction in program.instructions for value in instruction.outputs}
    first: list[Instruction] = []
    rest: list[Instruction] = []
    is_free = True
    for instruction in program.instructions:
        is_free &= not instruction.draws or computed.isdisjoint(instruction.inputs)
        (first if instruction.draws and is_free else rest).append(instruction)
    return program.with_instructions((*first, *rest))
