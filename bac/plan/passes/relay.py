"""Stores weight matrices in the layout in which the matrix product reads them.

``linear`` multiplies by the transpose of its weight. With a few rows of input, reading the weight across its rows
costs a fifth to a third of the time; in column-major order, it is read along them. The weight keeps its shape and only
gets other strides. If BLAS sums in the same order either way, the result is the same bit for bit. In float32 it mostly
does for four rows and more, in float64 it mostly does not. The pass tries each shape on random numbers, and leaves
products in 16 bits alone (`shows_order`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.passes.layouts import column_major
from bac.plan.passes.trial import draws, random_like, random_numbers, shows_order
from bac.plan.program import Instruction, Meta, Program, Ref

_MIN_ROWS = 4  # fewer rows are matrix-vector products


def relay_weights(program: Program) -> Program:
    """Give constant weights of `linear` column-major strides if that keeps every bit."""
    tried: dict[tuple[object, ...], bool] = {}
    relaid: dict[int, int] = {}
    constants, meta = dict(program.constants), dict(program.meta)
    fresh = program.fresh_values()
    kept = []
    for instruction in program.instructions:
        weight = _constant_weight(program, instruction)
        if weight is not None:
            source = program.meta[instruction.inputs[0]]
            matrix = program.constants[weight]
            key = (
                source.shape,
                source.stride,
                source.dtype,
                source.offset,
                matrix.data_ptr() % 64,
                matrix.shape,
                matrix.stride(),
                matrix.requires_grad,
                len(instruction.args),
            )
            if key not in tried:
                tried[key] = _same_bits(program, source, instruction)
            if tried[key]:
                if weight not in relaid:
                    relaid[weight] = copy = next(fresh)
                    constants[copy] = column_major(matrix)
                    meta[copy] = replace(meta[weight], stride=tuple(constants[copy].stride()), offset=0, root=copy)
                args = (instruction.args[0], Ref(relaid[weight]), *instruction.args[2:])
                instruction = replace(instruction, args=args)
        kept.append(instruction)
    return replace(program, constants=constants, meta=meta).with_instructions(kept)


def _constant_weight(program: Program, instruction: Instruction) -> int | None:
    """The weight's value, if the instruction multiplies four rows or more by a constant, row-major matrix on a CPU."""
    if instruction.operator != torch.ops.aten.linear.default:
        return None
    source, weight = instruction.inputs[:2]
    rows = torch.Size(program.meta[source].shape[:-1]).numel()
    if any(value not in program.constants for value in instruction.inputs[1:]):
        return None
    matrix = program.constants[weight]
    if matrix.device.type != "cpu" or not matrix.is_contiguous() or rows < _MIN_ROWS or not shows_order(matrix.dtype):
        return None
    return weight


def _same_bits(program: Program, source: Meta, instruction: Instruction) -> bool:
    weight, *bias = (program.constants[value] for value in instruction.inputs[1:])
    for generator in draws((*source.shape[:-1], weight.shape[0])):
        left = random_numbers(source, generator)
        matrix, *addend = (random_like(operand, generator) for operand in (weight, *bias))
        plain = instruction.operator(left, matrix, *addend)
        if not torch.equal(plain, instruction.operator(left, matrix.t().contiguous().t(), *addend)):
            return False
    return True
