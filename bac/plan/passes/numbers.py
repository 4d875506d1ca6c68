"""Makes the solver's numbers constants of the program: its steps then differ in tensors alone, and a compiler sees one.

A coefficient that is written into an operator, as in ``add(x, y, alpha=.28)``, makes every step another program. Rounds
anew where a product with it becomes an operator of its own; for compiled plans only.
"""

from __future__ import annotations

from typing import Any

import torch

from bac.plan.passes.emit import Emitter
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten

_PRODUCTS = {aten.addmm.default: aten.mm.default, aten.baddbmm.default: aten.bmm.default}
_SUMS = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}
_BINARY = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
_WIDE = (torch.float32, torch.float64)  # in 16 bits, a number would be rounded before it is used


def name_numbers(program: Program) -> Program:
    """Turn floating-point numbers in sums, products and clamps into constants without dimensions."""
    emitter = Emitter(program)
    for instruction in program.instructions:
        if not (_is_wide(program, instruction) and _renamed(emitter, instruction)):
            emitter.kept.append(instruction)
    return emitter.finish()


def _is_wide(program: Program, instruction: Instruction) -> bool:
    values = (*instruction.inputs, *instruction.outputs)
    return all(value in program.meta and program.meta[value].dtype in _WIDE for value in values)


def _renamed(emitter: Emitter, instruction: Instruction) -> bool:
    """Emit the instruction with its numbers as constants; returns whether it has any that can be."""
    operator, args, options = instruction.operator, instruction.args, dict(instruction.options)
    output = instruction.outputs[0]
    if operator in _SUMS and isinstance(options.get("alpha"), float) and _are_tensors(args):
        factor = _number(emitter, _SUMS[operator] * options["alpha"], output)
        emitter.emit(aten.addcmul.default, *args, factor, output=output)
    elif operator in _PRODUCTS and isinstance(options.get("alpha"), float) and set(options) == {"alpha"}:
        product = emitter.emit(_PRODUCTS[operator], *args[1:])
        emitter.emit(aten.addcmul.default, args[0], product, _number(emitter, options["alpha"], output), output=output)
    elif operator in _BINARY and not options and isinstance(args[-1], float):
        emitter.emit(operator, *args[:-1], _number(emitter, args[-1], output), output=output)
    elif operator == aten.clamp.default and not options and all(isinstance(bound, float) for bound in args[1:]):
        bounds = [_number(emitter, bound, output) for bound in args[1:]]
        emitter.emit(aten.clamp.Tensor, args[0], *bounds, output=output)
    else:
        return False
    return True


def _are_tensors(args: tuple[Any, ...]) -> bool:
    return all(isinstance(argument, Ref) for argument in args)


def _number(emitter: Emitter, number: float, value: int) -> Ref:
    """A constant of the dtype of a value, on its device."""
    meta = emitter.program.meta[value]
    return emitter.constant(torch.tensor(number, dtype=meta.dtype, device=meta.device))
