"""Compares many places (`bac.plan.places`) at once.

Where Python tells which dictionaries were written to (`bac.plan.tags`), only those are compared. Everything else, and
everything on other Pythons, is visited (`bac.plan.visits`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bac.plan.places import Place
from bac.plan.tags import AVAILABLE, Numbers, Tags, dict_in
from bac.plan.visits import Visits


class Watch:
    """Compares many places at once.

    Args:
        places: The places.
        tagged: Use tags. False visits everything.
    """

    def __init__(self, places: Sequence[Place], *, tagged: bool = AVAILABLE) -> None:
        self.places = tuple(places)
        dictionaries: dict[int, tuple[Any, list[Place]]] = {}
        instances, rest = [], []
        for place in places:
            if not tagged:
                rest.append(place)
            elif (found := dict_in(place.holder)) is not None and not place.is_of_attributes:
                dictionaries.setdefault(id(found), (found, []))[1].append(place)
            elif place.is_of_class and type(place.holder) is place.values[0]:
                instances.append(place)
            else:
                rest.append(place)
        self._tagged = [*(found for _, found in dictionaries.values()), *([place] for place in instances)]
        self._tags = Tags([found for found, _ in dictionaries.values()], [place.holder for place in instances])
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
            if any(next(place.differences(), None) is not None for place in self._tagged[number]):
                return False
        self._known, self._bytes = now, as_bytes
        return True
