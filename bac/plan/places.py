"""Places where the Python state of a denoising run lies: attributes, registries, items, class attributes, globals.

A plan is valid while every place holds the objects that it held when the plan was recorded. Objects are compared by
identity, which takes some 20 ns each, because the comparison of all places runs in C.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, is_, itemgetter, methodcaller
from types import FunctionType, MappingProxyType
from typing import Any

import torch
from torch import Tensor

_PLAIN = {str, bytes, int, float, complex, bool, type(None), tuple, torch.Size, torch.dtype, torch.device}
_COPIED = (dict, OrderedDict, list, MappingProxyType)
_VALUES, _CODE = methodcaller("values"), attrgetter("__code__")
_IDENTITY: Any = object.__eq__
_TURNS = 8  # chunks until the code of the same function is compared again; Python takes half a microsecond for one


@dataclass(frozen=True, eq=False)
class Place:
    """One holder with some of its names, and their values when it was looked at.

    Attributes:
        path: The holder, in words.
        holder: The object that `get` reads from.
        get: Gives the values, in the order of `names`.
        names: The names.
        values: The values.
        size: Number of all its entries, if a new one matters; otherwise None.
    """

    path: str
    holder: Any
    get: Callable[[Any], Iterable[Any]]
    names: tuple[Any, ...]
    values: tuple[Any, ...]
    size: int | None = None

    @classmethod
    def of_mapping(cls, path: str, holder: Any, names: Iterable[Any], *, sized: bool = True) -> Place:
        """Some items of a dictionary, or some attributes of a class, its bases left out."""
        names, mapping = _at_least_two(names), _mapping(holder)
        get = itemgetter(*names) if names else _nothing
        return cls(path, holder, get, names, tuple(get(mapping)), len(mapping) if sized else None)

    @classmethod
    def of_attributes(cls, path: str, holder: Any, names: Iterable[str]) -> Place:
        """Some attributes, looked up as Python does it: through slots and base classes."""
        names = _at_least_two(names)
        get = attrgetter(*names) if names else _nothing
        return cls(path, holder, get, names, tuple(get(holder)))

    @classmethod
    def of_items(cls, path: str, holder: Any) -> Place:
        """All items of a list, set or deque, or all values of a mapping that is no plain dictionary."""
        get = _VALUES if hasattr(holder, "values") else tuple
        values = tuple(get(holder))
        return cls(path, holder, get, tuple(range(len(values))), values, len(values))

    @property
    def is_whole(self) -> bool:
        """Whether it is all of a plain container."""
        kind = type(_mapping(self.holder))
        return self.size is not None and kind in _COPIED and len({*self.names}) == self.size

    def exactly(self, copies: Mapping[int, Any]) -> Place:
        """The part for which ``==`` with a copy may be wrong."""
        names = [name for name, value in self.named() if id(value) not in copies and _may_equal_another(value)]
        return Place.of_mapping(self.path, self.holder, names, sized=False)

    @property
    def key(self) -> tuple[int, type]:
        """Identity of the holder, and the way of reading it."""
        return id(self.holder), type(self.get)

    def named(self) -> Iterator[tuple[Any, Any]]:
        """Names with values."""
        return zip(self.names, self.values, strict=True)

    def within(self, other: Place, ignored: Collection[tuple[str, Any]] = ()) -> Place | None:
        """The part that holds the same values in `other`, and is not ignored; None if that is nothing."""
        was = dict(other.named())
        kept = [n for n, v in self.named() if n in was and was[n] is v and (self.path, n) not in ignored]
        sized = self.size is not None and self.size == other.size and (self.path, None) not in ignored
        if isinstance(self.get, attrgetter):
            return Place.of_attributes(self.path, self.holder, kept) if kept else None
        if self.get is tuple or self.get is _VALUES:
            return self if sized and len(kept) == len(self.names) else None
        return Place.of_mapping(self.path, self.holder, kept, sized=sized) if kept or sized else None

    def difference(self) -> tuple[Any, str] | None:
        """A name whose value is another now (None for a new or lost name), and what happened, in words."""
        holder = _mapping(self.holder)
        if self.size is not None and len(holder) != self.size:
            return None, f"{self.path} got or lost an entry"
        try:
            now = tuple(self.get(holder))
        except (AttributeError, LookupError):
            return None, f"{self.path} lost an entry"
        replaced = (name for name, value, was in zip(self.names, now, self.values, strict=True) if value is not was)
        name = next(replaced, self)
        return None if name is self else (name, f"{self.path}.{name} was replaced")


class Watch:
    """Compares many places at once.

    Dictionaries that are watched whole, with the containers within them, are compared to copies: ``==`` on containers
    takes 15 ns an item, since it asks an item for ``__eq__`` only if it is another object. An item that might answer
    wrongly then, such as a tensor with one element, is compared by identity besides, as is everything else.

    Args:
        places: The places.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        whole = {id(place.holder): place for place in places if place.is_whole}
        inner = {id(value) for place in whole.values() for value in place.values if not isinstance(value, type)}
        roots = [place for key, place in whole.items() if key not in inner]
        copies: dict[int, Any] = {}
        self._live = [_mapping(place.holder) for place in roots]
        self._copies = [_copy(place, whole, copies) for place in roots]
        functions = [place.holder for place in places if isinstance(place.holder, FunctionType)]
        self._functions = [functions[turn::_TURNS] for turn in range(_TURNS)]
        self._codes = [list(map(_CODE, some)) for some in self._functions]
        self._turn = 0
        rest = [place for place in places if not isinstance(place.holder, FunctionType)]
        rest = [place.exactly(copies) if id(place.holder) in copies else place for place in rest]
        self._sized = [_mapping(place.holder) for place in rest if place.size is not None]
        self._sizes = [place.size for place in rest if place.size is not None]
        self._getters = [(place.get, _mapping(place.holder)) for place in rest if place.names]
        self._values = list(chain.from_iterable(place.values for place in rest if place.names))

    def is_same(self) -> bool:
        """Whether every place holds what it held."""
        try:
            if self._live != self._copies or list(map(len, self._sized)) != self._sizes:
                return False
            found = chain.from_iterable([get(holder) for get, holder in self._getters])
            self._turn = turn = (self._turn + 1) % _TURNS
            same = all(map(is_, found, self._values))
            return same and list(map(_CODE, self._functions[turn])) == self._codes[turn]
        except Exception:  # noqa: BLE001  (it is gone, it cannot be compared, another thread changes it)
            return False

    def difference(self) -> tuple[str, Any, str] | None:
        """Path and name of the first change, and what happened, in words; None if nothing changed."""
        for place in self.places:
            if (found := place.difference()) is not None:
                return place.path, *found
        return None


def _copy(place: Place, whole: Mapping[int, Place], copies: dict[int, Any]) -> Any:
    """A copy of a holder, with copies of the watched containers within it."""
    key = id(place.holder)
    if key not in copies:
        copies[key] = place.holder  # a container within itself stays itself
        parts = [
            _copy(whole[id(value)], whole, copies) if id(value) in whole and not isinstance(value, type) else value
            for value in place.values
        ]
        copies[key] = parts if isinstance(place.holder, list) else dict(zip(place.names, parts, strict=True))
    return copies[key]


def _may_equal_another(value: Any) -> bool:
    """Whether ``==`` may be true for another object that can change later."""
    if isinstance(value, Tensor):
        return value.numel() == 1  # of others, `==` has no truth value
    if isinstance(value, (dict, list, set)):
        return bool(value)  # PyTorch keeps empty ones in every module
    return type(value) not in _PLAIN and type(value).__eq__ is not _IDENTITY


def _mapping(holder: Any) -> Any:
    return vars(holder) if isinstance(holder, type) else holder


def _at_least_two(names: Iterable[Any]) -> tuple[Any, ...]:
    """The names; a single one twice, since getters return a lone value for a lone name."""
    kept = tuple(names)
    return kept * 2 if len(kept) == 1 else kept


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()
