"""Writes new instructions into a program, and derives names and layouts of their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from bac.plan.program import Instruction, Meta, Program, Ref, references, run, substitute

Site = TypeVar("Site")


class Emitter:
    """Collects the instructions of a program that is being rewritten.

    Args:
        program: The program to rewrite. Its constants and layouts are copied; new ones are added to the copies.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.meta = dict(program.meta)
        self.constants = dict(program.constants)
        self.kept: list[Instruction] = []
        self._fresh = program.fresh_values()

    def constant(self, tensor: Tensor) -> Ref:
        """Add a constant."""
        value = next(self._fresh)
        self.constants[value], self.meta[value] = tensor, Meta.of(tensor, value)
        return Ref(value)

    def emit(self, operator: Callable[..., Any], *args: Any, output: int | None = None, **options: Any) -> Ref:
        """Append a call with one result.

        Args:
            operator: An ATen overload.
            args: Positional arguments, values as `Ref`.
            output: Value to define; a new one if not given.
            options: Keyword arguments.
        """
        value = next(self._fresh) if output is None else output
        shapes = {v: _shape_of(self.meta[v]) for v in references((args, tuple(options.items())))}
        result = operator(*substitute(args, shapes.__getitem__), **options)  # on meta tensors: only the layout
        # A result in the memory of an input is a view of it.
        storage = result.untyped_storage()._cdata
        roots = [self.meta[v].root for v, shape in shapes.items() if shape.untyped_storage()._cdata == storage]
        root = roots[0] if roots else value
        self.meta[value] = replace(Meta.of(result, root), device=self.meta[next(iter(shapes))].device)
        self.kept.append(Instruction(operator, args, tuple(options.items()), (value,)))
        return Ref(value)

    def emit_all(self, operator: Callable[..., Any], *args: Any, outputs: tuple[int | None, ...]) -> tuple[Ref, ...]:
        """Append a call with several results, each in memory of its own.

        Args:
            operator: An operator that returns a tuple.
            args: Positional arguments, values as `Ref`.
            outputs: Values to define; a new one for None.
        """
        values = tuple(next(self._fresh) if value is None else value for value in outputs)
        device = self.meta[references(args)[0]].device
        for value, result in zip(values, operator(*substitute(args, self._layout)), strict=True):
            self.meta[value] = replace(Meta.of(result, value), device=device)
        self.kept.append(Instruction(operator, args, (), values, sequence=True))
        return tuple(map(Ref, values))

    def _layout(self, value: int) -> Tensor:
        return _shape_of(self.meta[value])

    def rewrite(self, sites: Mapping[int, Site], write: Callable[[Site], None]) -> Program:
        """Write every site where it ends, and keep everything else.

        Args:
            sites: Last value of a site to the site.
            write: Emits the instructions that replace a site.
        """
        for instruction in self.program.instructions:
            site = sites.get(instruction.outputs[0]) if instruction.outputs else None
            if site is None:
                self.kept.append(instruction)
            else:
                write(site)
        return self.finish()

    def finish(self) -> Program:
        """The rewritten program."""
        return replace(self.program, meta=self.meta, constants=self.constants).with_instructions(self.kept)


def _shape_of(meta: Meta) -> Tensor:
    size = meta.offset + 1 + sum((n - 1) * s for n, s in zip(meta.shape, meta.stride, strict=True))
    memory = torch.empty(size, dtype=meta.dtype, device="meta")
    return memory.as_strided(meta.shape, meta.stride, meta.offset)


def producers_of(program: Program) -> dict[int, Instruction]:
    """Value to the instruction that defines it."""
    return {value: instruction for instruction in program.instructions for value in instruction.outputs}


def is_projection(program: Program, instruction: Instruction) -> bool:
    """Whether it is a matrix product with a constant weight and, if it has one, a constant bias."""
    is_linear = instruction.operator == torch.ops.aten.linear.default
    return is_linear and all(value in program.constants for value in instruction.inputs[1:])


def origin(program: Program, producers: Mapping[int, Instruction], value: int) -> tuple[int, Tensor]:
    """Follow a value back through views and copies to the value that computed its numbers.

    Returns:
        That value, and for every element its position there, counted row by row, int64.
    """
    path: list[Instruction] = []
    source = value
    while (step := producers.get(source)) is not None and _moves(program, step):
        path.append(step)
        (source,) = step.inputs
    meta = program.meta[source]
    places = torch.empty_strided(meta.shape, meta.stride, dtype=torch.int64)
    places.copy_(torch.arange(places.numel()).view(meta.shape))
    values: dict[int, Tensor] = {source: places}
    for step in reversed(path):
        values.update(zip(step.outputs, run(step, values), strict=True))
    return source, values[value]


def _moves(program: Program, instruction: Instruction) -> bool:
    """Whether it only moves the elements of its one input, unchanged."""
    copies = {torch.ops.aten.contiguous.default, torch.ops.aten.clone.default}
    moves = program.is_view(instruction) or instruction.operator in copies
    return moves and len(instruction.inputs) == 1 and instruction.inputs[0] in program.meta
