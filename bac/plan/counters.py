"""Finds a number that a run itself changes and the next run reads again, such as a counter with a threshold.

A replay does not count, so it would never reach the threshold. Two looks, after one run and after later ones, show
which numbers move on. Those that every run sets anew (a noise scheduler's ``_step_index``) end at the same value. A
number that is only counted (``self.num_calls += 1``) or stored decides nothing; the bytecode of the run tells whether
it goes anywhere else: into a comparison, a call, a local variable. Bytecode has names, not objects, so a number is
also suspected for what happens to one of the same name.
"""

from __future__ import annotations

import dis
from collections.abc import Collection, Iterable
from types import CodeType
from typing import Any

import numpy as np

from bac.plan.places import Place

_NUMBERS = (bool, int, float, complex, np.generic)
_HARMLESS = ("STORE_ATTR", "STORE_SUBSCR", "POP_TOP", "FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC")
_ON_THE_WAY = ("LOAD_", "BINARY_", "INPLACE_", "UNARY_", "COPY", "DUP_", "SWAP", "ROT_", "CACHE", "EXTENDED_ARG")


def counter(before: Iterable[Place], now: Iterable[Place], codes: Collection[CodeType]) -> str | None:
    """A number that moved on between two looks and decides something, in words; None if there is none.

    Args:
        before: Places after a run.
        now: The same places after further runs.
        codes: Code of a run.
    """
    was = {(place.key, name): value for place in before for name, value in place.named()}
    for place in now:
        for name, value in place.named():
            old = was.get((place.key, name))
            is_number = isinstance(value, _NUMBERS) and type(old) is type(value)
            if is_number and old != value == value and any(_decides(code, name) for code in codes):  # no NaN
                return f"{place.path}.{name} (it went from {old} to {value})"
    return None


def _decides(code: CodeType, name: str) -> bool:
    """Whether code reads an attribute for more than to store a number made of it."""
    if name not in code.co_names:
        return False
    instructions = list(dis.get_instructions(code))
    reads = (i for i, found in enumerate(instructions) if found.opname == "LOAD_ATTR" and found.argval == name)
    return any(_sink(instructions[read + 1 :]) not in _HARMLESS for read in reads)


def _sink(following: Iterable[Any]) -> str:
    """The instruction where the value of an expression ends up."""
    return next((found.opname for found in following if not found.opname.startswith(_ON_THE_WAY)), "")
