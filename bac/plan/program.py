"""A denoising run as a straight-line program: no branches, no loops, no writes, every value assigned once.

The tape writes it, the passes rewrite it, the code generator turns it into Python. A value is a whole number. In the
arguments of an instruction a value appears as a `Ref`; everything else is a literal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a value in an instruction's arguments."""

    value: int


@dataclass(frozen=True)
class Instruction:
    """Calls an ATen operator and names its results.

    Attributes:
        operator: An ATen overload, or the function of a pass that replaces one.
        args: Positional arguments; values as `Ref`, also inside tuples.
        options: Keyword arguments.
        outputs: Values it defines. More than one if the operator returns a sequence.
        sequence: The operator returns a tuple or list, even if of one.
        draws: It advances a random generator, so it is never dropped, merged or moved past another draw.
    """

    operator: Callable[..., Any]
    args: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]
    outputs: tuple[int, ...]
    sequence: bool = False
    draws: bool = False

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Values it reads, in order, with repetitions."""
        return references((self.args, self.options) if self.options else self.args)

    @property
    def expression(self) -> tuple[Any, ...]:
        """Operator and arguments, for comparison. Equal only if the results are: 1 is not 1.0 or True, 0.0 not -0.0."""
        return self.operator, _typed(self.args), _typed(self.options)

    @property
    def name(self) -> str:
        """The operator's name, ``add`` or ``scaled_dot_product_attention``."""
        return str(self.operator.__name__).partition(".")[0]


@dataclass(frozen=True, slots=True)
class Meta:
    """Layout of a tensor value as recorded.

    Attributes:
        root: The value that owns the memory; the value itself unless it is a view.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device
    root: int

    @classmethod
    def of(cls, tensor: Tensor, root: int) -> Meta:
        """Layout of a tensor that is, or is a view of, the value `root`."""
        offset = int(tensor.storage_offset())
        return cls(tuple(tensor.shape), tuple(tensor.stride()), offset, tensor.dtype, tensor.device, root)


@dataclass(frozen=True, eq=False)
class Program:
    """Instructions in order of execution, with their inputs and constants.

    Attributes:
        instructions: The instructions; every value is defined before it is read.
        inputs: Value to position among the flattened arguments of the sampler.
        constants: Value to tensor, for values that depend on neither arguments nor random draws.
        outputs: Values returned.
        meta: Layout of tensor values.
    """

    instructions: tuple[Instruction, ...]
    inputs: Mapping[int, int]
    constants: Mapping[int, Tensor]
    outputs: tuple[int, ...]
    meta: Mapping[int, Meta]
    _uses: dict[int, int] = field(default_factory=dict, repr=False)  # filled by `num_uses` when first asked

    @property
    def num_operations(self) -> int:
        """Number of instructions that compute, views not counted."""
        return sum(not self.is_view(instruction) for instruction in self.instructions)

    def is_view(self, instruction: Instruction) -> bool:
        """Whether the results share memory with another value."""
        return all(self.meta[value].root != value for value in instruction.outputs)

    @property
    def num_uses(self) -> Mapping[int, int]:
        """Number of reads of each value; a returned value counts as read."""
        if not self._uses:
            for value in (*(v for i in self.instructions for v in i.inputs), *self.outputs):
                self._uses[value] = self._uses.get(value, 0) + 1
        return self._uses

    @property
    def variable(self) -> frozenset[int]:
        """Values that depend on an argument or a random draw."""
        found = set(self.inputs)
        for instruction in self.instructions:
            if instruction.draws or not found.isdisjoint(instruction.inputs):
                found.update(instruction.outputs)
        return frozenset(found)

    def with_instructions(self, instructions: Iterable[Instruction]) -> Program:
        """The program with other instructions, without constants that none of them reads."""
        kept = tuple(instructions)
        read = {value for instruction in kept for value in instruction.inputs}.union(self.outputs)
        constants = {value: tensor for value, tensor in self.constants.items() if value in read}
        return replace(self, instructions=kept, constants=constants, _uses={})

    def fresh_values(self) -> Iterator[int]:
        """Values that the program does not use yet."""
        highest = max((*self.meta, *self.inputs, *self.constants), default=-1)
        while True:
            highest += 1
            yield highest


def references(argument: Any) -> tuple[int, ...]:
    """Values in an argument, depth first."""
    found: list[int] = []
    _collect(argument, found)
    return tuple(found)


def _collect(argument: Any, found: list[int]) -> None:
    if isinstance(argument, Ref):
        found.append(argument.value)
    elif isinstance(argument, tuple):
        for part in argument:
            if isinstance(part, Ref):
                found.append(part.value)
            elif isinstance(part, tuple):
                _collect(part, found)


def substitute(argument: Any, get: Callable[[int], Any]) -> Any:
    """The argument with ``get(value)`` in place of every `Ref`."""
    if isinstance(argument, Ref):
        return get(argument.value)
    if isinstance(argument, tuple):
        return tuple([substitute(part, get) for part in argument])
    return argument


def _typed(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple([_typed(part) for part in argument])
    return (type(argument), repr(argument)) if isinstance(argument, (int, float, complex)) else argument


def rename(instruction: Instruction, new: Mapping[int, int]) -> Instruction:
    """The instruction reading ``new[value]`` in place of each value in `new`."""
    if not any(value in new for value in instruction.inputs):
        return instruction
    args, options = substitute((instruction.args, instruction.options), lambda value: Ref(new.get(value, value)))
    return replace(instruction, args=args, options=options)


def run(instruction: Instruction, values: Mapping[int, Any]) -> tuple[Any, ...]:
    """Execute one instruction on its operator; returns its results in the order of `outputs`."""
    args, options = substitute((instruction.args, instruction.options), values.__getitem__)
    result = instruction.operator(*args, **dict(options))
    return tuple(result) if instruction.sequence else (result,)


def interpret(program: Program, leaves: tuple[Any, ...]) -> tuple[Any, ...]:
    """Execute a program one operator at a time: the slow, simple reference for generated code.

    Args:
        leaves: The sampler's arguments, flattened.
    """
    values: dict[int, Any] = {**program.constants, **{v: leaves[place] for v, place in program.inputs.items()}}
    for instruction in program.instructions:
        values.update(zip(instruction.outputs, run(instruction, values), strict=True))
    return tuple(values[value] for value in program.outputs)
