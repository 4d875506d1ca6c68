"""Compares many places (`bac.plan.places`) at once.

Where Python tells which dictionaries were written to (`bac.plan.tags`), only those are compared. Everything else, and
everything on other Pythons, is visited (`bac.plan.visits`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bac.plan.places import OF_FUNCTION, Place
from bac.plan.tags import AVAILABLE, Numbers, Tags, Word, words_of_class, words_of_dictionary, words_of_function
from bac.plan.visits import Visits


class Watch:
    """Compares many places at once.

    Args:
        places: The places.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        words = [_words(place) for place in places]
        self._tags = Tags([word for own in words for word in own])
        self._tagged = [place for place, own in zip(places, words, strict=True) for _ in own]
        rest = [place for place, own in zip(places, words, strict=True) if not own]
        self._known: Numbers = np.zeros(len(self._tagged), np.uint64)
        self._bytes = self._known.tobytes()
        self._visits = Visits(rest)
        self.is_same()  # the tags are read before the values are compared, so that no write falls between the two

    def is_same(self) -> bool:
        """Whether every place holds what it held; what is rare and has no tag is compared at every eighth call."""
        try:
            return self._are_tagged_same() and self._visits.is_same()
        except Exception:  # noqa: BLE001  (it is gone, it cannot be compared, another thread changes it)
            return False

    def differences(self) -> Iterator[tuple[str, Any, str]]:
        """Path and name of every change, and what happened, in words."""
        for place in self.places:
            for name, reason in place.differences():
                yield place.path, name, reason

    def _are_tagged_same(self) -> bool:
        now = self._tags.now()
        if (as_bytes := now.tobytes()) == self._bytes:  # the fastest comparison
            return True
        for number in np.flatnonzero(now != self._known):
            if next(self._tagged[number].differences(), None) is not None:
                return False
        self._known, self._bytes = now, as_bytes
        return True


def _words(place: Place) -> tuple[Word, ...]:
    """What tells that a place may have changed; nothing for one that must be visited."""
    if not AVAILABLE:
        return ()
    if not place.is_of_attributes:
        return words_of_dictionary(place.holder)
    if set(place.names) == {"__class__"}:
        return words_of_class(place.holder)
    return words_of_function(place.holder) if set(place.names) == set(OF_FUNCTION) else ()
