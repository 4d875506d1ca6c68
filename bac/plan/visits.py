"""Compares many places (`bac.plan.places`) by a look at all of them, in C.

Right after a chunk the caches hold weights and activations, so a comparison mostly waits for memory. Three things keep
it short: one tight loop visits all objects first, whose waits overlap; dictionaries are compared whole to copies that
share their table of names; and what hardly ever changes, such as the code of a function, is compared in turns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor

from bac.plan.places import Place, mapping_of

_PLAIN = {str, bytes, int, float, complex, bool, type(None), tuple, torch.Size, torch.dtype, torch.device}
_IDENTITY: Any = object.__eq__
TURNS = 8  # chunks until the same rare values are compared again


class Visits:
    """Compares many places by a look at all of them.

    Dictionaries that are watched whole, with the containers within them, are compared to copies: ``==`` on containers
    takes 15 ns an item, since it asks an item for ``__eq__`` only if it is another object. An item that might answer
    wrongly then, such as a tensor with one element, is compared by identity besides, as is everything else.

    Args:
        places: The places.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        whole = {id(place.holder): place for place in places if place.is_whole}
        inner = {id(value) for place in whole.values() for value in place.values}
        roots = [place for key, place in whole.items() if key not in inner]
        copies: dict[int, Any] = {}
        self._live = [place.holder for place in roots]
        self._copies = [_copy(place, whole, copies) for place in roots]
        rest = [place for place in places if id(place.holder) not in copies]
        partial = [place for place in rest if not place.is_complete and place.known is not None]
        self._freed = [place for place in partial if place.free]
        self._keys = [mapping_of(place.holder).keys() for place in partial if not place.free]
        self._known = [place.known for place in partial if not place.free]
        sized = [place for place in rest if place.is_complete and place.known is not None]
        self._sized, self._sizes = [mapping_of(place.holder) for place in sized], [place.size for place in sized]
        exact = [_exactly(place, copies) for place in places if id(place.holder) in copies]
        often = [place.part({*place.names} - place.rare) if place.rare else place for place in rest]
        rare = [place.part(place.rare) for place in rest if place.rare]
        often = [*exact, *often]
        self._often = _Values(often)
        self._rare = [_Values(rare[turn::TURNS]) for turn in range(TURNS)]
        self._turn = 0
        self._visited = _objects([*whole.values(), *often], copies.values())

    def is_same(self) -> bool:
        """Whether every place holds what it held; rare values are compared at every eighth call.

        Raises:
            Exception: Of any class; a value is gone, cannot be compared, or another thread changes it.
        """
        self._turn = turn = (self._turn + 1) % TURNS
        self._visited.copy()  # fetches every object from memory
        return (
            self._live == self._copies
            and list(map(len, self._sized)) == self._sizes
            and self._keys == self._known
            and all(map(Place.has_its_names, self._freed))
            and self._often.are_same()
            and self._rare[turn].are_same()
        )


class _Values:
    """Values that are compared by identity."""

    def __init__(self, places: Sequence[Place]) -> None:
        places = [place for place in places if place.names]
        self._getters = [(place.get, mapping_of(place.holder)) for place in places]
        self._values = list(chain.from_iterable(place.values for place in places))

    def are_same(self) -> bool:
        return all(map(is_, chain.from_iterable([get(holder) for get, holder in self._getters]), self._values))


def _copy(place: Place, whole: Mapping[int, Place], copies: dict[int, Any]) -> Any:
    """A copy of a holder, with copies of the watched containers within it."""
    key = id(place.holder)
    if key not in copies:
        copies[key] = place.holder  # a container within itself stays itself
        copies[key] = copied = _shallow(place.holder)
        for name, value in place.named():
            if id(value) in whole:
                copied[name] = _copy(whole[id(value)], whole, copies)
    return copies[key]


def _shallow(holder: Any) -> Any:
    """The copy of an object's dictionary shares its table of names, which is half of what a comparison reads."""
    if isinstance(holder, OrderedDict):
        return dict(holder)  # whose order does not matter
    return holder.copy()


def _objects(places: Sequence[Place], copies: Iterable[Any]) -> list[Any]:
    """Every object that a comparison visits, in the order of memory."""
    holders, values = [place.holder for place in places], chain.from_iterable(place.values for place in places)
    objects = {id(found): found for found in chain(holders, copies, values) if type(found) not in (str, bool)}
    return [objects[address] for address in sorted(objects)]


def _exactly(place: Place, copies: Mapping[int, Any]) -> Place:
    """The part for which ``==`` with a copy may be wrong."""
    names = [name for name, value in place.named() if id(value) not in copies and _may_equal_another(value)]
    return Place.of_mapping(place.path, place.holder, names, sized=False)


def _may_equal_another(value: Any) -> bool:
    """Whether ``==`` may be true for another object that can change later."""
    if isinstance(value, Tensor):
        return value.numel() == 1  # of others, `==` has no truth value
    if isinstance(value, (dict, list, set)):
        return bool(value)  # PyTorch keeps empty ones in every module
    return type(value) not in _PLAIN and type(value).__eq__ is not _IDENTITY
