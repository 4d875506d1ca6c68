"""Sums neighbouring reused residuals once instead of at every denoising step.

At a step that updates nothing, a residual stream adds the same stored features in the same order as at the step
before. The pass takes additions as lists of addends. It sums a pair that is adjacent in several lists once, puts the
sum in the pair's place, and repeats until no pair occurs twice. A uniform schedule is left with one addition per reused
step; for a fragmented one, the pass finds the longest stretches that steps share.

Re-associates: ``(x + a) + b`` becomes ``x + (a + b)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import torch

from bac.plan.program import Instruction, Meta, Program, Ref

add = torch.ops.aten.add.Tensor

Pair = tuple[int, int]


def presum_residuals(program: Program) -> Program:
    """Share partial sums between chains of additions."""
    chains = _chains(program)
    fresh = program.fresh_values()
    meta = dict(program.meta)
    sums: dict[int, Pair] = {}
    while repeated := _repeated(chains.values()):  # sums of one round may be adjacent in the next
        names = {pair: next(fresh) for pair in repeated}
        sums.update({name: pair for pair, name in names.items()})
        for name, (left, right) in sums.items():
            if name not in meta:
                meta[name] = _sum_layout(meta[left], meta[right], name)
        chains = {value: _merged(addends, names) for value, addends in chains.items()}
    return _rewritten(replace(program, meta=meta), chains, sums, fresh)


def _chains(program: Program) -> dict[int, list[int]]:
    """Value of an addition to its addends. An addition whose only reader is another addition joins that one."""
    chains: dict[int, list[int]] = {}
    for instruction in program.instructions:
        if instruction.operator != add or len(instruction.inputs) != 2 or instruction.options:
            continue
        addends: list[int] = []
        for value in instruction.inputs:
            inner = program.num_uses[value] == 1 and value in chains
            addends += chains.pop(value) if inner else [value]
        chains[instruction.outputs[0]] = addends
    return chains


def _repeated(chains: Iterable[list[int]]) -> set[Pair]:
    """Adjacent pairs that occur more than once. No two of them share an addend."""
    counts = Counter(pair for addends in chains for pair in pairwise(addends))
    chosen: set[Pair] = set()
    taken: set[int] = set()
    for pair, count in counts.most_common():
        if count > 1 and taken.isdisjoint(pair):
            chosen.add(pair)
            taken.update(pair)
    return chosen


def _merged(addends: list[int], names: dict[Pair, int]) -> list[int]:
    merged: list[int] = []
    for value in addends:
        name = names.get((merged[-1], value)) if merged else None
        if name is None:
            merged.append(value)
        else:
            merged[-1] = name
    return merged


def _rewritten(program: Program, chains: dict[int, list[int]], sums: dict[int, Pair], fresh: Iterator[int]) -> Program:
    """Emit every sum before its first use. Dead code elimination drops the old additions inside a chain."""
    meta = dict(program.meta)
    kept: list[Instruction] = []
    emitted: set[int] = set()

    def emit(name: int) -> None:
        if name in sums and name not in emitted:
            emitted.add(name)
            left, right = sums[name]
            emit(left)
            emit(right)
            kept.append(_sum(left, right, name))

    for instruction in program.instructions:
        addends = chains.get(instruction.outputs[0])
        if addends is None:
            kept.append(instruction)
            continue
        for value in addends:
            emit(value)
        total = addends[0]
        for value in addends[1:-1]:
            partial = next(fresh)
            meta[partial] = _sum_layout(meta[total], meta[value], partial)
            kept.append(_sum(total, value, partial))
            total = partial
        kept.append(_sum(total, addends[-1], instruction.outputs[0]) if len(addends) > 1 else instruction)
    return replace(program, meta=meta).with_instructions(kept)


def _sum(left: int, right: int, name: int) -> Instruction:
    return Instruction(add, (Ref(left), Ref(right)), (), (name,))


def _sum_layout(left: Meta, right: Meta, name: int) -> Meta:
    one, other = (torch.empty_strided(m.shape, m.stride, dtype=m.dtype, device="meta") for m in (left, right))
    return replace(Meta.of(one + other, name), device=left.device)
