"""Drops instructions without a reader: the norm before a reused block, the products of a block that is not updated."""

from __future__ import annotations

from bac.plan.program import Program


def drop_dead_code(program: Program) -> Program:
    """Keep random draws, and all instructions that the draws or the outputs depend on.

    An unread draw stays, because leaving it out would change every later draw of the same generator.
    """
    live = set(program.outputs)
    kept = []
    for instruction in reversed(program.instructions):
        if instruction.draws or not live.isdisjoint(instruction.outputs):
            live.update(instruction.inputs)
            kept.append(instruction)
    return program.with_instructions(reversed(kept))
