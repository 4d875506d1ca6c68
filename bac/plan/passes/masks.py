"""Replaces constant masks among indices by the places where they are true.

An index by a mask looks for these places in every run. On a GPU the host waits for the answer, and a CUDA graph cannot
hold that. The places are whole numbers, found here once; the elements are the same, in the same order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bac.plan.program import Instruction, Meta, Program, Ref

_INDEXING = ("index", "index_put", "index_put_")


def index_by_places(program: Program) -> Program:
    """Replace constant masks by places."""
    fresh, constants, meta = program.fresh_values(), dict(program.constants), dict(program.meta)
    known: dict[int, tuple[Ref, ...]] = {}

    def places(mask: int) -> tuple[Ref, ...]:
        if mask not in known:
            found = [column.contiguous() for column in constants[mask].nonzero().unbind(1)]
            values = [next(fresh) for _ in found]
            constants.update(zip(values, found, strict=True))
            meta.update({value: Meta.of(tensor, value) for value, tensor in zip(values, found, strict=True)})
            known[mask] = tuple(map(Ref, values))
        return known[mask]

    def indices(instruction: Instruction) -> tuple[Any, ...]:
        made: list[Any] = []
        for index in instruction.args[1]:
            made += places(index.value) if _is_mask(index, constants) else (index,)
        return tuple(made)

    changed = [
        replace(instruction, args=(instruction.args[0], indices(instruction), *instruction.args[2:]))
        if instruction.name in _INDEXING and len(instruction.args) > 1 and isinstance(instruction.args[1], tuple)
        else instruction
        for instruction in program.instructions
    ]
    return replace(program, constants=constants, meta=meta).with_instructions(changed) if known else program


def _is_mask(index: Any, constants: dict[int, Tensor]) -> bool:
    return isinstance(index, Ref) and index.value in constants and constants[index.value].dtype == torch.bool
