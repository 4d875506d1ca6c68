"""Takes coefficients of the solver into operators that multiply anyway.

Re-associates: ``x + c * y`` is rounded once instead of twice, and ``c * clamp(x / a, l, h)`` is
``(c / a) * clamp(x, a l, a h)``.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.program import Instruction, Program, Ref, rename

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


def clamp_undivided(program: Program) -> Program:
    """Clamp before a division by a constant number, and divide what multiplies the result."""
    producers = {i.outputs[0]: i for i in program.instructions}
    readers: dict[int, list[Instruction]] = {}
    for instruction in program.instructions:
        for value in set(instruction.inputs):
            readers.setdefault(value, []).append(instruction)
    fresh, constants, meta = program.fresh_values(), dict(program.constants), dict(program.meta)
    changed: dict[int, Instruction] = {}
    for clamp in program.instructions:
        divisor = _divisor(program, clamp, producers)
        value = clamp.outputs[0]
        if divisor is None or value in program.outputs or not readers.get(value):
            continue
        scaled = [_divided(program, changed.get(r.outputs[0], r), value, divisor) for r in readers[value]]
        if None in scaled:
            continue
        for reader in scaled:
            assert reader is not None
            instruction, number = reader
            if number is not None:
                new = next(fresh)
                constants[new] = constants[number] / divisor
                meta[new] = replace(meta[number], root=new)
                args = tuple(Ref(new) if a == Ref(number) else a for a in instruction.args)
                instruction = replace(instruction, args=args)
            changed[instruction.outputs[0]] = instruction
        whole = producers[clamp.inputs[0]].inputs[0]
        changed[value] = replace(clamp, args=(Ref(whole), *[float(bound) * divisor for bound in clamp.args[1:]]))
    kept = [changed.get(i.outputs[0], i) if i.outputs else i for i in program.instructions]
    return replace(program, constants=constants, meta=meta).with_instructions(kept)


def _divisor(program: Program, clamp: Instruction, producers: dict[int, Instruction]) -> float | None:
    """The positive number by which the argument of a clamp was divided for it alone."""
    if clamp.operator != aten.clamp.default or len(clamp.args) != 3 or clamp.options:
        return None
    if any(not isinstance(bound, (int, float)) for bound in clamp.args[1:]):
        return None
    division = producers.get(clamp.inputs[0])
    if division is None or division.operator != aten.div.Tensor or len(division.inputs) != 2 or division.options:
        return None
    whole, number = division.inputs
    if number not in program.constants or program.constants[number].dim() or program.num_uses[division.outputs[0]] > 1:
        return None
    same = program.meta[whole].dtype == program.meta[division.outputs[0]].dtype
    divisor = float(program.constants[number])
    return divisor if same and divisor > 0 else None


def _divided(
    program: Program, reader: Instruction, value: int, divisor: float
) -> tuple[Instruction, int | None] | None:
    """A reader of `value` that multiplies it by less; with the constant to divide, if that is where it multiplies."""
    if reader.operator in (aten.add.Tensor, aten.sub.Tensor) and len(reader.inputs) == 2:
        if reader.inputs[1] != value or reader.inputs[0] == value:
            return None
        alpha = float(dict(reader.options).get("alpha", 1.0))
        return replace(reader, options=(("alpha", alpha / divisor),)), None
    if reader.operator != aten.mul.Tensor or len(reader.inputs) != 2 or reader.options:
        return None
    others = [other for other in reader.inputs if other != value]
    if len(others) != 1 or others[0] not in program.constants or program.constants[others[0]].dim():
        return None
    return reader, others[0]


def drop_zero_additions(program: Program) -> Program:
    """Drop additions of nothing: of a number zero, or of something finite times zero."""
    same: dict[int, int] = {}
    kept = []
    for instruction in program.instructions:
        instruction = rename(instruction, same)
        if instruction.operator in (aten.add.Tensor, aten.sub.Tensor) and isinstance(instruction.args[0], Ref):
            first, second = instruction.args[:2]
            zero = isinstance(second, (int, float)) and second == 0
            zero = zero or (isinstance(second, Ref) and dict(instruction.options).get("alpha") == 0.0)
            before, after = program.meta.get(first.value), program.meta[instruction.outputs[0]]
            if zero and before is not None and (before.shape, before.stride, before.dtype) == (
                after.shape, after.stride, after.dtype
            ):  # fmt: skip
                same[instruction.outputs[0]] = first.value
                continue
        kept.append(instruction)
    if not same:
        return program
    roots = {value: program.meta[first].root for value, first in same.items()}
    meta = {value: replace(its, root=roots.get(its.root, its.root)) for value, its in program.meta.items()}
    outputs = tuple(same.get(value, value) for value in program.outputs)
    return replace(program, meta=meta, outputs=outputs).with_instructions(kept)


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
