"""Computes equal expressions once, which hoists everything that all denoising steps share out of the loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bac.plan.program import Program, rename


def share_equal(program: Program) -> Program:
    """Keep the first of several equal instructions, and let it replace the others."""
    first: dict[Any, tuple[int, ...]] = {}
    same: dict[int, int] = {}
    kept = []
    for instruction in program.instructions:
        renamed = rename(instruction, same)
        if not renamed.draws:
            outputs = first.setdefault(renamed.expression, renamed.outputs)
            if outputs is not renamed.outputs:
                same.update(zip(renamed.outputs, outputs, strict=True))
                continue
        kept.append(renamed)
    outputs = tuple(same.get(value, value) for value in program.outputs)
    return replace(program, outputs=outputs).with_instructions(kept)
