"""Multiplies by a coefficient of the solver and adds in one operator.

Re-associates: ``x + c * y`` is rounded once instead of twice.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten


def fuse_scaled_additions(program: Program) -> Program:
    """Rewrite ``add(x, mul(c, y))`` as ``add(x, y, alpha=c)`` for a constant number c, and `sub` likewise."""
    products = {i.outputs[0]: i for i in program.instructions if i.operator == aten.mul.Tensor}
    kept = []
    for instruction in program.instructions:
        if instruction.operator in (aten.add.Tensor, aten.sub.Tensor) and not instruction.options:
            instruction = _fused(program, instruction, products) or instruction
        kept.append(instruction)
    return program.with_instructions(kept)


def _fused(program: Program, instruction: Instruction, products: dict[int, Instruction]) -> Instruction | None:
    if len(instruction.inputs) != 2:
        return None
    left, right = instruction.inputs
    orders = [(left, right), (right, left)] if instruction.operator == aten.add.Tensor else [(left, right)]
    for kept, scaled in orders:
        if scaled in products and program.num_uses[scaled] == 1 and program.meta[kept].shape:
            for number, value in _factors(program, products[scaled]):
                if program.meta[value].shape == program.meta[kept].shape:
                    return replace(instruction, args=(Ref(kept), Ref(value)), options=(("alpha", number),))
    return None


def _factors(program: Program, product: Instruction) -> list[tuple[float, int]]:
    """The ways to read a product as (constant number, other factor)."""
    if len(product.inputs) != 2:
        return []
    left, right = product.inputs
    constants = program.constants
    pairs = [(one, other) for one, other in ((left, right), (right, left)) if one in constants]
    return [(float(constants[one]), other) for one, other in pairs if constants[one].dim() == 0]
