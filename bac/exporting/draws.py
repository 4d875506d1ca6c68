"""Turns a program's random draws into inputs.

An exported file must not draw: every runtime has its own generator, and results could not be compared draw by draw.
Draws of one shape in a row become one input, so DDPM's are `[K, B, T, Da]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from bac.errors import RunError
from bac.exported import Noise
from bac.plan.program import Instruction, Meta, Program, Ref

aten = torch.ops.aten

# Operators that draw from a standard distribution, by name; a mean and a standard deviation are checked.
_DISTRIBUTIONS = {
    "randn": "normal", "randn_like": "normal", "normal": "normal", "normal_": "normal", "normal_functional": "normal",
    "rand": "uniform", "rand_like": "uniform", "uniform_": "uniform",
}  # fmt: skip
_STANDARD = {"normal": (0.0, 1.0), "uniform": (0.0, 1.0)}


def without_draws(program: Program, names: Mapping[int, str]) -> tuple[Program, tuple[Noise, ...]]:
    """Replace every draw by a part of an input.

    Args:
        program: The program; its inputs are those in `names`, in that order.
        names: Value to name of each input.

    Returns:
        A program whose inputs are the observations and then the noise, and what the noise is.

    Raises:
        RunError: A draw is from another distribution.
    """
    draws = [instruction for instruction in program.instructions if instruction.draws]
    meta, fresh = dict(program.meta), program.fresh_values()
    groups = [list(group) for _, group in groupby(draws, lambda draw: _kind(draw, program))]
    noise: list[Noise] = []
    given: dict[int, Instruction] = {}  # draw's value to the instruction that takes it out of an input
    inputs = {value: place for place, value in enumerate(names)}
    for index, group in enumerate(groups):
        shape, dtype, distribution = _kind(group[0], program)
        name = "noise" if len(groups) == 1 else f"noise.{index}"
        noise.append(Noise(name, (len(group), *shape), str(dtype).removeprefix("torch."), distribution))
        whole = next(fresh)
        inputs[whole] = len(inputs)
        meta[whole] = Meta.of(torch.empty(len(group), *shape, dtype=dtype, device="meta"), whole)
        for place, draw in enumerate(group):
            (value,) = draw.outputs
            given[value] = Instruction(aten.select.int, (Ref(whole), 0, place), (), (value,))
    kept = [given.get(instruction.outputs[0], instruction) for instruction in program.instructions]
    return replace(program, inputs=inputs, meta=meta).with_instructions(kept), tuple(noise)


def _kind(draw: Instruction, program: Program) -> tuple[tuple[int, ...], torch.dtype, str]:
    """Shape, dtype and distribution of a draw."""
    distribution = _DISTRIBUTIONS.get(draw.name)
    if distribution is None or len(draw.outputs) != 1 or _numbers(draw) not in ((), _STANDARD[distribution]):
        raise RunError(
            f"{draw.name}: an export takes its random draws as input, from a normal distribution (mean 0, standard "
            f"deviation 1) or a uniform one (in [0, 1)), got {draw.name}{_numbers(draw)}"
        )
    meta = program.meta[draw.outputs[0]]
    return meta.shape, meta.dtype, distribution


def _numbers(draw: Instruction) -> tuple[Any, ...]:
    """The parameters of the distribution: mean and standard deviation, or the ends of the range."""
    named = {name: value for name, value in draw.options if name in ("mean", "std", "from", "to")}
    given = tuple(float(part) for part in draw.args if isinstance(part, (int, float)))
    return given + tuple(map(float, named.values()))
