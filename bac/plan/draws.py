"""Splits a program into its random draws and the rest.

A captured or compiled program must not draw: it would draw from the generators of the first run. The draws, in order
and with their shapes, become a prologue that runs as before. The rest takes their results as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from bac.plan.program import Program
from bac.plan.refusal import Refusal


@dataclass(frozen=True)
class Divided:
    """A program in two parts.

    Attributes:
        prologue: Program from the sampler's arguments to random numbers.
        body: Program from tensors to outputs.
        sources: Origins of the body's tensors, as positions in the sampler's arguments followed by the prologue's
            results.
    """

    prologue: Program
    body: Program
    sources: tuple[int, ...]

    def arguments(self, draw: Callable[[Sequence[Any]], tuple[Tensor, ...]], leaves: Sequence[Any]) -> list[Tensor]:
        """The body's arguments; `draw` is the compiled prologue."""
        available = (*leaves, *draw(leaves))
        return [available[source] for source in self.sources]


def divide(program: Program, num_leaves: int) -> Divided:
    """Move draws, and CPU instructions that read nothing but draws, out of a program.

    Args:
        num_leaves: Number of the sampler's arguments, flattened.

    Raises:
        Refusal: A draw depends on an argument.
    """
    variable = {value for value in program.inputs if value in program.meta}
    drawn: set[int] = set()
    first, second = [], []
    for instruction in program.instructions:
        reads = [value for value in instruction.inputs if value in program.meta]
        if instruction.draws and not variable.isdisjoint(reads):
            raise Refusal(f"the draw of {instruction.name} depends on the arguments")
        only_drawn = not drawn.isdisjoint(reads) and variable.isdisjoint(reads)
        if instruction.draws or (only_drawn and _on_host(program, (*reads, *instruction.outputs))):
            first.append(instruction)
            drawn.update(instruction.outputs)
        else:
            second.append(instruction)
            variable.update(instruction.outputs)
    read = {value for instruction in second for value in instruction.inputs}.union(program.outputs)
    handed = [value for instruction in first for value in instruction.outputs if value in read]
    given = {value: place for value, place in program.inputs.items() if value in program.meta}
    given |= {value: num_leaves + place for place, value in enumerate(handed)}
    places = {value: place for place, value in enumerate(given)}
    prologue = replace(program, outputs=tuple(handed)).with_instructions(first)
    body = replace(program, inputs=places).with_instructions(second)
    return Divided(prologue, body, tuple(given.values()))


def _on_host(program: Program, values: Sequence[int]) -> bool:
    metas = [program.meta[value] for value in values]
    return any(meta.device.type == "cpu" and meta.shape for meta in metas)  # CUDA operators take CPU scalars
