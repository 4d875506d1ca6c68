"""Adds up to four tensors in one operator, for compiled plans on a CPU.

A cached run adds up the features that it reuses. A compiler makes one loop of such sums inside of its pieces; between
them every addition is a kernel.

Re-associates.
"""

from __future__ import annotations

import torch

from bac.plan.packed import kernels
from bac.plan.passes.emit import Emitter, producers_of
from bac.plan.passes.residual import is_dense
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten

_MOST = 4  # tensors of one operator
_LARGEST = 1 << 14  # elements: beyond, the additions cost more than their launches


def add_up(program: Program) -> Program:
    """Rewrite sums of three and more tensors whose partial sums nothing else reads."""
    emitter, producers = Emitter(program), producers_of(program)
    sums = {i.outputs[0] for i in program.instructions if _is_sum(program, i)}
    uses = program.num_uses
    inner = {
        v
        for i in program.instructions
        if i.outputs and i.outputs[0] in sums
        for v in i.inputs
        if v in sums and uses[v] == 1 and v not in program.outputs
    }
    zero: list[Ref] = []
    for instruction in program.instructions:
        value = instruction.outputs[0] if instruction.outputs else None
        if value not in sums or value in inner:
            emitter.kept.append(instruction)
            continue
        terms = _terms(instruction, producers, inner)
        if len(terms) < 3 or kernels().add_four is None:
            emitter.kept.append(instruction)
            continue
        while len(terms) > _MOST:
            terms = [emitter.emit(kernels().add_four, *terms[:_MOST]), *terms[_MOST:]]
        if len(terms) < _MOST and not zero:
            zero.append(emitter.constant(torch.zeros(1, dtype=torch.float32, device="cpu")))
        emitter.emit(kernels().add_four, *terms, *(zero * (_MOST - len(terms))), output=value)
    return emitter.finish()


def _is_sum(program: Program, instruction: Instruction) -> bool:
    """Whether it adds two tensors of few numbers, in one layout, in float32 on a CPU."""
    if instruction.operator != aten.add.Tensor or instruction.options or len(instruction.inputs) != 2:
        return False
    metas = [program.meta[value] for value in (*instruction.inputs, *instruction.outputs) if value in program.meta]
    kinds = {(m.shape, m.dtype, m.device.type) for m in metas}
    few = torch.Size(metas[-1].shape).numel() <= _LARGEST
    is_plain = kinds == {(metas[-1].shape, torch.float32, "cpu")}
    return len(metas) == 3 and few and is_plain and is_dense(metas[-1])


def _terms(instruction: Instruction, producers: dict[int, Instruction], inner: set[int]) -> list[Ref]:
    """What a sum adds up, in order."""
    return [
        term
        for value in instruction.inputs
        for term in (_terms(producers[value], producers, inner) if value in inner else [Ref(value)])
    ]
