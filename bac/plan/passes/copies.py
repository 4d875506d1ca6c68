"""Drops copies. Nothing is written to in a program, so a copy that lies in memory as the original does is the original.

Interceptors copy a feature for policies that may write into it. The tape has turned such writes into new values.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Program, rename


def drop_copies(program: Program) -> Program:
    """Read the original wherever a `clone` of the same layout is read, and wherever memory of the clone is viewed."""
    same: dict[int, int] = {}
    roots: dict[int, int] = {}
    kept = []
    for instruction in program.instructions:
        renamed = rename(instruction, same)
        if renamed.operator is torch.ops.aten.clone.default and renamed.inputs[0] in program.meta:
            copy, source = renamed.outputs[0], renamed.inputs[0]
            meta = program.meta[source]
            if replace(program.meta[copy], root=meta.root) == meta:
                same[copy], roots[copy] = source, roots.get(meta.root, meta.root)
                continue
        kept.append(renamed)
    if not same:
        return program
    metas = {value: replace(its, root=roots.get(its.root, its.root)) for value, its in program.meta.items()}
    outputs = tuple(same.get(value, value) for value in program.outputs)
    return replace(program, meta=metas, outputs=outputs).with_instructions(kept)
