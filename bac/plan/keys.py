"""Which calls a plan holds for: the signature of the arguments, and the numbers of those that Python reads.

Which ones it reads, only a recording tells. They are tokens, masks and sizes: another text is another key, like another
shape.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any, NamedTuple

from bac.plan.signature import numbers


class Key(NamedTuple):
    """What a plan holds for.

    Attributes:
        kind: The signature of the arguments, and whether the guard's fallback is on.
        numbers: Numbers of the arguments that Python reads, as far as recordings told.
    """

    kind: Hashable
    numbers: Hashable = ()


class Keys:
    """Makes keys, and learns from recordings which numbers belong into them."""

    def __init__(self) -> None:
        self._pinned: dict[Hashable, tuple[int, ...]] = {}  # positions of arguments, by kind

    def of(self, kind: Hashable, leaves: Sequence[Any]) -> Key:
        """The key of a call with these arguments, flattened."""
        pinned = self._pinned.get(kind)
        return Key(kind, numbers(leaves, pinned) if pinned else ())

    def learn(self, kind: Hashable, pinned: Collection[int]) -> bool:
        """Take note of arguments that a run of this kind read. Returns whether keys made before lack one of them."""
        known = self._pinned.get(kind, ())
        if set(pinned) <= set(known):
            return False
        self._pinned[kind] = tuple(sorted({*known, *pinned}))
        return True
