"""Outlines what a program repeats: each piece once, and a short program that calls the pieces.

A plan is unrolled: a hundred steps of eight layers each are the same code on other tensors. A compiler that sees each
piece once takes as long for a hundred steps as for ten. A piece takes weights and constants as arguments. Views of what
a piece returns are made outside of it, so that everything that it returns has memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from bac.plan.program import Instruction, Meta, Program, Ref, substitute
from bac.plan.rolling.repeats import repeats

LONGEST = 400  # instructions of a piece: as many as the longest step that was met
_CALL = 2.5  # operators that take as long as the call of a piece
_LARGE = 49  # operators of a piece beside which its call no longer counts
_LEAST = 24  # operators that a piece must save, or hold if nothing repeats it, to be worth the compiler's seconds

# They hold for one layout of what they read. A compiler chooses layouts of what it computes.
_STRIDED = (torch.ops.aten.as_strided.default, torch.ops.aten.as_strided_scatter.default)

_Layout = tuple[tuple[int, ...], tuple[int, ...], int, torch.dtype, torch.device]


@dataclass(eq=False)
class Piece:
    """A part of a program as a function of its own; called with tensors, it returns a tuple of tensors.

    Attributes:
        program: What it computes; all that it reads is an argument.
        given: The values that its first call reads.
        num_calls: How often the outlined program calls it.
        function: How it is executed; set by the compiler.
        num_kernels: Kernels that one call launches; one for each operator until the compiler has fused them.
    """

    program: Program = field(repr=False)
    given: tuple[int, ...] = field(repr=False)
    num_calls: int = 0
    function: Callable[..., Any] | None = field(default=None, repr=False)
    num_kernels: int = field(default=0, repr=False)

    __name__ = "piece"

    def __post_init__(self) -> None:
        self.num_kernels = self.num_kernels or self.program.num_operations

    def __str__(self) -> str:
        return f"{self.program.num_operations} operators, called {self.num_calls} times"

    def __call__(self, *arguments: Tensor) -> Any:
        if self.function is None:
            raise RuntimeError("a piece was called before it was compiled")
        return self.function(list(arguments))


@dataclass(frozen=True)
class Outlined:
    """A program in pieces.

    Attributes:
        program: The program, calling pieces. Its inputs, constants and outputs are the same.
        pieces: The distinct pieces, in order of their first call.
    """

    program: Program
    pieces: tuple[Piece, ...]


def outline(program: Program) -> Outlined:
    """Cut a program into pieces, each distinct one once. Draws, what reads no tensors, and strides stay outside."""
    return _Outliner(program).outlined()


class _Outliner:
    """Cuts one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.layouts: dict[int, _Layout] = {
            v: (m.shape, m.stride, m.offset, m.dtype, m.device) for v, m in program.meta.items()
        }
        self.layouts |= {value: _layout(tensor) for value, tensor in program.constants.items()}
        self.kinds = self._kinds()
        self.weights = [int(not program.is_view(instruction)) for instruction in program.instructions]
        self.last_read = {value: place for place, i in enumerate(program.instructions) for value in i.inputs}
        self.last_read |= dict.fromkeys(program.outputs, len(program.instructions))

    def outlined(self) -> Outlined:
        pieces: dict[int, Piece] = {}
        kept: list[Instruction] = []
        place = 0
        for start, end, group in self._segments():
            kept += self.program.instructions[place:start]
            if id(group) not in pieces:
                pieces[id(group)] = self._piece(group, end - start)
            kept += self._call(pieces[id(group)], start, end)
            place = end
        kept += self.program.instructions[place:]
        return Outlined(self.program.with_instructions(kept), tuple(pieces.values()))

    def _kinds(self) -> list[int]:
        """A number for each instruction: equal if they compute the same on other tensors, -1 if it stays outside."""
        known: dict[Hashable, int] = {}
        kinds = []
        for instruction in self.program.instructions:
            values = (*instruction.inputs, *instruction.outputs)
            is_fixed = instruction.draws or instruction.operator in _STRIDED
            if is_fixed or any(value not in self.layouts for value in values):
                kinds.append(-1)
                continue
            made = tuple(self.layouts[value] for value in instruction.outputs)
            key = instruction.sequence, made, substitute(instruction.expression, self.layouts.__getitem__)
            kinds.append(known.setdefault(key, len(known)))
        return kinds

    def _segments(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Start, end, and the starts of all that are alike, of each segment that becomes a call, in order."""
        found = [
            (start, start + repeat.length, repeat.starts)
            for repeat in repeats(
                self.kinds, self.weights, self._cuts(), self._wiring, price=_price, longest=LONGEST, least=_LEAST
            )
            for start in repeat.starts
        ]
        found.sort()
        ends = [0, *(end for _, end, _ in found)]
        starts = [*(start for start, _, _ in found), len(self.kinds)]
        alone = (part for gap in zip(ends, starts, strict=True) for part in self._parts(*gap))
        return sorted([*found, *((start, end, (start,)) for start, end in alone)])

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Parts of what nothing repeats that are worth a piece: without what stays outside, and not too long."""
        barred = [place for place in range(start, end) if self.kinds[place] < 0]
        for before, after in pairwise((start - 1, *barred, end)):
            for first in range(before + 1, after, LONGEST):
                last = min(first + LONGEST, after)
                if sum(self.weights[first:last]) >= _LEAST:
                    yield first, last

    def _cuts(self) -> list[int]:
        """Number of computed tensors that live across each place: what a cut there must hand over."""
        change = [0] * (len(self.kinds) + 2)
        roots = {value: meta.root for value, meta in self.program.meta.items()}
        last: dict[int, int] = {}
        for value, place in self.last_read.items():
            root = roots.get(value, value)
            last[root] = max(place, last.get(root, 0))
        for place, instruction in enumerate(self.program.instructions):
            for value in instruction.outputs:
                if value in last:
                    change[place + 1] += 1
                    change[last[value] + 1] -= 1
        return list(accumulate(change))

    def _wiring(self, start: int, end: int) -> Hashable:
        """Who reads whom in a segment, by order of first mention: equal if one piece can stand for both."""
        names: dict[int, int] = {}
        return tuple(
            names.setdefault(value, len(names))
            for instruction in self.program.instructions[start:end]
            for value in (*instruction.inputs, *instruction.outputs)
        )

    def _piece(self, starts: Sequence[int], length: int) -> Piece:
        """The function that all of these segments call: it returns what any of them needs."""
        first = starts[0]
        places: dict[int, None] = {}
        for start in starts:
            made = _made(self.program.instructions[start : start + length])
            where = {value: place for place, value in enumerate(made)}
            places |= dict.fromkeys(where[value] for value in self._needed(start, start + length)[0])
        segment = self.program.instructions[first : first + length]
        made, given = _made(segment), _given(segment)
        program = Program(
            segment,
            {value: place for place, value in enumerate(given)},
            {},
            tuple(made[place] for place in sorted(places)),
            self._metas((*made, *given)),
        )
        return Piece(program, tuple(given))

    def _metas(self, values: Iterable[int]) -> dict[int, Meta]:
        constants = self.program.constants
        return {v: self.program.meta.get(v) or Meta.of(constants[v], v) for v in values}

    def _call(self, piece: Piece, start: int, end: int) -> list[Instruction]:
        """The call, and the views of what it returns that others read."""
        segment = self.program.instructions[start:end]
        own = _made(piece.program.instructions)
        order = {value: place for place, value in enumerate(own)}
        made = _made(segment)
        outputs = tuple(made[order[value]] for value in piece.program.outputs)
        arguments = tuple(Ref(value) for value in _given(segment))
        piece.num_calls += 1
        call = Instruction(piece, arguments, (), outputs, sequence=True)
        views = self._needed(start, end)[1]
        return [call, *(view for view in views if not set(view.outputs) <= set(outputs))]

    def _needed(self, start: int, end: int) -> tuple[list[int], list[Instruction]]:
        """What a segment computes that is read after it, and the views that lead there."""
        segment = self.program.instructions[start:end]
        wanted = {value for value in _made(segment) if self.last_read.get(value, -1) >= end}
        views: list[Instruction] = []
        for instruction in reversed(segment):
            if self.program.is_view(instruction) and not wanted.isdisjoint(instruction.outputs):
                views.append(instruction)
                wanted -= set(instruction.outputs)
                wanted |= set(instruction.inputs) & set(_made(segment))
        return [value for value in _made(segment) if value in wanted], views[::-1]


def _price(weight: int) -> float:
    """What a call of a piece costs [operators]: little beside a large piece."""
    return _CALL * max(0.0, 1 - weight / _LARGE)


def _made(instructions: Sequence[Instruction]) -> list[int]:
    return [value for instruction in instructions for value in instruction.outputs]


def _given(instructions: Sequence[Instruction]) -> list[int]:
    """What instructions read and do not compute, by first mention."""
    made = set(_made(instructions))
    return list(dict.fromkeys(value for i in instructions for value in i.inputs if value not in made))


def _layout(tensor: Tensor) -> _Layout:
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()), tensor.dtype, tensor.device
