"""Splits constant tokens off a sequence, so that no run computes them.

The condition encoder of a diffusion transformer reads a timestep token, which is a constant of its denoising step, and
observation tokens, which are the same at every step. For operators that treat each token on its own::

    f(cat(time[k], observation))  ==  cat(f(time[k]), f(observation))

the left half folds away, all steps share the right half, and a denoising step is left with the ``cat``. Whether a row
of a matrix product keeps its bits among fewer rows depends on BLAS, so each shape is tried on random numbers before it
is split; a product in 16 bits never is (`shows_order`). Constant tokens are computed among zeros in the place of the
others, so the shape of their product is the same as before.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from types import MappingProxyType

import torch
from torch import Tensor

from bac.plan.passes.trial import draws, like, random_like, random_numbers, shows_order
from bac.plan.program import Instruction, Meta, Program, Ref, substitute

aten = torch.ops.aten

_POINTWISE = {aten.gelu.default, aten.mish.default, aten.relu.default, aten.silu.default, aten.tanh.default}


@dataclass(frozen=True)
class Split:
    """A value split into parts along `dim`: `parts[i]` begins at `starts[i]` and is `sizes[i]` long."""

    dim: int
    parts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        return tuple(accumulate(self.sizes, initial=0))[:-1]


def split_tokens(program: Program) -> Program:
    """Apply token-wise operators to the parts of a concatenation of constant and variable tokens, bit for bit."""
    return _Splitter(program, exact=True).run()


def split_tokens_anyway(program: Program) -> Program:
    """Do the same, without the check for equal bits."""
    return _Splitter(program, exact=False).run()


class _Splitter:
    """Walks through a program once. `splits` holds the values that are split into parts."""

    def __init__(self, program: Program, *, exact: bool) -> None:
        self.program = program
        self.exact = exact
        self.meta = dict(program.meta)
        self.constants = dict(program.constants)
        self.splits: dict[int, Split] = {}
        self.kept: list[Instruction] = []
        self._fresh = program.fresh_values()
        self._cuts: dict[Hashable, int] = {}
        self._tried: dict[Hashable, tuple[Meta, ...] | None] = {}

    def run(self) -> Program:
        for instruction in self.program.instructions:
            if not self._start(instruction) and not self._carry_on(instruction):
                self.kept.append(instruction)
        return replace(self.program, meta=self.meta, constants=self.constants).with_instructions(self.kept)

    def _start(self, instruction: Instruction) -> bool:
        """Remember a `cat` of constant and variable parts as a split value. Returns whether it is one."""
        if instruction.operator != aten.cat.default:
            return False
        parts = instruction.inputs
        if not 0 < sum(part in self.constants for part in parts) < len(parts):
            return False
        value = instruction.outputs[0]
        rank = len(self.meta[value].shape)
        if any(len(self.meta[part].shape) != rank for part in parts):
            return False  # `cat` takes an empty cache of any rank
        dim = instruction.args[1] if len(instruction.args) > 1 else 0
        dim %= rank
        self.splits[value] = Split(dim, parts, tuple(self.meta[part].shape[dim] for part in parts))
        self.kept.append(instruction)
        return True

    def _carry_on(self, instruction: Instruction) -> bool:
        """Apply a token-wise operator to the parts of a split value. Returns whether it could."""
        known = [value for value in instruction.inputs if value in self.splits]
        others = [value for value in instruction.inputs if value not in known]
        if len(known) != 1 or not all(value in self.constants for value in others):
            return False
        value = instruction.outputs[0]
        view = self.meta[value].root != value
        if not view and not _is_dense(self.meta[value]):
            return False  # a `cat` would lay the result out differently
        split = self.splits[known[0]]
        dim = _dim_after(instruction, split.dim, self.meta[instruction.outputs[0]])
        metas = self._try(instruction, known[0], split, dim) if dim is not None else None
        if dim is None or metas is None:
            return False
        parts = tuple(self._part(instruction, known[0], split, place, dim, meta) for place, meta in enumerate(metas))
        self.splits[value] = Split(dim, parts, split.sizes)
        if not view:
            instruction = Instruction(aten.cat.default, (tuple(map(Ref, parts)), dim), (), (value,))
        self.kept.append(instruction)
        return True

    def _part(self, instruction: Instruction, whole: int, split: Split, place: int, dim: int, meta: Meta) -> int:
        """Emit the operator on one part, or evaluate it if the part is constant."""
        part, start, size = split.parts[place], split.starts[place], split.sizes[place]
        result = next(self._fresh)
        if part in self.constants:
            among_zeros = torch.zeros(self.meta[whole].shape, dtype=meta.dtype, device=meta.device)
            among_zeros = like(among_zeros, self.meta[whole])
            among_zeros.narrow(split.dim, start, size).copy_(self.constants[part])
            output = self._apply(instruction, whole, among_zeros)
            self.constants[result] = tensor = output.narrow(dim, start, size).clone()
            self.meta[result] = replace(meta, stride=tuple(tensor.stride()), offset=0, root=result)
            return result
        self.meta[result] = replace(meta, root=self.meta[part].root if meta.root == whole else result)
        args = substitute(instruction.args, lambda value: Ref(self._operand(instruction, value, whole, split, place)))
        self.kept.append(replace(instruction, args=args, outputs=(result,)))
        return result

    def _operand(self, instruction: Instruction, value: int, whole: int, split: Split, place: int) -> int:
        """The operand's counterpart when the operator reads only one part of the whole."""
        if value == whole:
            return split.parts[place]
        tensor = _cut(instruction, self.constants[value], self.meta[whole], split, place)
        if tensor is self.constants[value]:
            return value
        key = value, tuple(tensor.shape), tensor.storage_offset()
        if key not in self._cuts:  # one value for all steps, so that `share_equal` finds them equal
            self._cuts[key] = cut = next(self._fresh)
            self.constants[cut] = tensor
            self.meta[cut] = Meta.of(tensor, cut)
        return self._cuts[key]

    def _try(self, instruction: Instruction, whole: int, split: Split, dim: int) -> tuple[Meta, ...] | None:
        """Layouts of the parts' results; `None` if these results differ from the parts of the whole result."""
        constant = tuple(part in self.constants for part in split.parts)
        operands = tuple(value for value in instruction.inputs if value != whole)
        layouts = tuple((self.meta[value].shape, self.meta[value].stride) for value in (whole, *split.parts))
        key = instruction.operator, instruction.options, operands, layouts, split.dim, constant
        if key not in self._tried:
            self._tried[key] = self._trial(instruction, whole, split, dim, constant)
        return self._tried[key]

    def _trial(
        self, instruction: Instruction, whole: int, split: Split, dim: int, constant: tuple[bool, ...]
    ) -> tuple[Meta, ...] | None:
        value = instruction.outputs[0]
        if self.exact and instruction.operator == aten.linear.default and not shows_order(self.meta[whole].dtype):
            return None
        metas: tuple[Meta, ...] | None = None
        for generator in draws(self.meta[value].shape):
            metas = self._draw(instruction, whole, split, dim, constant, generator)
            if metas is None or not self.exact or self.meta[value].root != value:
                break  # one draw shows the layouts, and a view has no bits of its own
        return metas

    def _draw(
        self,
        instruction: Instruction,
        whole: int,
        split: Split,
        dim: int,
        constant: tuple[bool, ...],
        generator: torch.Generator,
    ) -> tuple[Meta, ...] | None:
        """Compare the parts' results with the parts of the whole result, once."""
        numbers = random_numbers(self.meta[whole], generator)
        operands = {
            value: random_like(self.constants[value], generator)
            for value in instruction.inputs
            if value != whole and self.constants[value].is_floating_point()
        }
        output = self._apply(instruction, whole, numbers, operands)
        view = self.meta[instruction.outputs[0]].root != instruction.outputs[0]
        metas = []
        for place, (part, start, size) in enumerate(zip(split.parts, split.starts, split.sizes, strict=True)):
            sample = like(numbers.narrow(split.dim, start, size), self.meta[part])
            result = self._apply(instruction, whole, sample, operands, split, place)
            expected = output.narrow(dim, start, size)
            if result.shape != expected.shape:
                return None
            # `_part` computes constant parts in the original shape, so their bits need no trial.
            if self.exact and not constant[place] and not torch.equal(result, expected):
                return None
            metas.append(Meta.of(result, whole if view else -1))
        return tuple(metas)

    def _apply(
        self,
        instruction: Instruction,
        whole: int,
        tensor: Tensor,
        operands: Mapping[int, Tensor] = MappingProxyType({}),
        split: Split | None = None,
        place: int = 0,
    ) -> Tensor:
        """Execute the operator on `tensor` in place of `whole`, with `operands` in place of constants."""

        def get(value: int) -> Tensor:
            if value == whole:
                return tensor
            operand = operands.get(value, self.constants[value])
            return operand if split is None else _cut(instruction, operand, self.meta[whole], split, place)

        args, options = substitute((instruction.args, instruction.options), get)
        result: Tensor = instruction.operator(*args, **dict(options))
        return result


def _is_dense(meta: Meta) -> bool:
    """Whether the layout is row-major and contiguous."""
    dense = torch.empty(meta.shape, device="meta").stride()
    return all(n == 1 or a == b for n, a, b in zip(meta.shape, meta.stride, dense, strict=True))


def _dim_after(instruction: Instruction, dim: int, meta: Meta) -> int | None:
    """The dimension along which a token-wise operator's result is split; `None` if the operator is not token-wise."""
    rank = len(meta.shape)
    operator, args = instruction.operator, instruction.args
    if operator in _POINTWISE or operator == aten.add.Tensor:
        return dim
    if operator == aten.linear.default and isinstance(args[0], Ref) and dim < rank - 1:
        return dim
    if operator == aten.layer_norm.default and dim < rank - len(args[1]):
        return dim
    if operator == aten.transpose.int:
        first, second = args[1] % rank, args[2] % rank
        return int({first: second, second: first}.get(dim, dim))
    return None


def _cut(instruction: Instruction, operand: Tensor, meta: Meta, split: Split, place: int) -> Tensor:
    """The part of an addend that belongs to a part of the whole; other operands are the same for all parts."""
    dim = split.dim - len(meta.shape) + operand.dim()
    if instruction.operator != aten.add.Tensor or dim < 0 or operand.shape[dim] == 1:
        return operand
    return operand.narrow(dim, split.starts[place], split.sizes[place])
