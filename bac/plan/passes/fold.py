"""Computes, at build time, all values that depend on neither arguments nor random draws.

These are time embeddings, masks, weight transposes, the solver's coefficients. The same operators run once, here,
instead of in every run, so the values are the same bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from bac.plan.program import Instruction, Program, run


def fold_constants(program: Program) -> Program:
    """Replace constant instructions that variable ones read by their values."""
    variable = program.variable
    constant: list[Instruction] = []
    kept: list[Instruction] = []
    for instruction in program.instructions:
        (constant if variable.isdisjoint(instruction.outputs) else kept).append(instruction)
    wanted = {value for instruction in kept for value in instruction.inputs}.union(program.outputs)
    values = _evaluate(constant, program.constants, wanted)
    return replace(program, constants=values).with_instructions(kept)


def _evaluate(
    instructions: Sequence[Instruction], constants: Mapping[int, Tensor], wanted: set[int]
) -> dict[int, Tensor]:
    """Run `instructions`; keep the `wanted` values and free every other after its last use."""
    values = dict(constants)
    remaining = Counter(value for instruction in instructions for value in instruction.inputs)
    for instruction in instructions:
        values.update(zip(instruction.outputs, run(instruction, values), strict=True))
        remaining.subtract(instruction.inputs)
        for value in {*instruction.inputs, *instruction.outputs}:
            if not remaining[value] and value not in wanted:
                values.pop(value, None)
    return values
