"""Finds the few distinct instructions of a long program: denoising steps repeat them with other tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bac.plan.program import Instruction, Meta, Program, Ref, substitute

_Layout = tuple[tuple[int, ...], torch.dtype, torch.device]


@dataclass(frozen=True)
class Vocabulary:
    """The distinct instructions of a program.

    Attributes:
        program: One of each, on inputs of its own. Its outputs are theirs, in order.
        kinds: For each instruction of the long program, the one in `program` that computes the same.
        examples: A tensor for each input of `program`.
    """

    program: Program
    kinds: tuple[Instruction, ...]
    examples: tuple[Tensor, ...]


def vocabulary(program: Program) -> Vocabulary:
    """Find the distinct instructions: two are the same if they differ only in which tensors they read.

    Operator, literals, and the shapes, dtypes and devices of what they read are then equal. Strides may differ: ONNX
    knows none.
    """
    layouts: dict[int, _Layout] = {value: (its.shape, its.dtype, its.device) for value, its in program.meta.items()}
    layouts |= {value: (tuple(its.shape), its.dtype, its.device) for value, its in program.constants.items()}
    fresh, found = program.fresh_values(), dict[Any, Instruction]()
    read: dict[int, _Layout] = {}  # by the distinct instructions
    meta: dict[int, Meta] = {}
    kinds = []
    for instruction in program.instructions:
        key = len(instruction.outputs), substitute(instruction.expression, layouts.__getitem__)
        if key not in found:
            kind = _on_its_own(instruction, fresh)
            read |= {new: layouts[old] for new, old in zip(kind.inputs, instruction.inputs, strict=True)}
            meta |= {new: program.meta[old] for new, old in zip(kind.outputs, instruction.outputs, strict=True)}
            found[key] = kind
        kinds.append(found[key])
    distinct = tuple(found.values())
    outputs = tuple(value for kind in distinct for value in kind.outputs)
    inputs = {value: place for place, value in enumerate(read)}
    examples = tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in read.values())
    return Vocabulary(Program(distinct, inputs, {}, outputs, meta), tuple(kinds), examples)


def _on_its_own(instruction: Instruction, fresh: Iterator[int]) -> Instruction:
    """The instruction with a new value for everything that it reads and defines."""
    args, options = substitute((instruction.args, instruction.options), lambda _: Ref(next(fresh)))
    return replace(instruction, args=args, options=options, outputs=tuple(next(fresh) for _ in instruction.outputs))
