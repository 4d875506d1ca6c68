"""Places where the Python state of a denoising run lies: attributes, registries, items, class attributes, globals.

A plan is valid while every place has the names, and holds the objects, that it had when the plan was recorded.
`bac.plan.watch` compares all places at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter, methodcaller
from typing import Any

_PLAIN_CONTAINERS = (dict, OrderedDict, list)
_VALUES = methodcaller("values")
_EQUAL = (int, float, complex, str, bytes)
OF_FUNCTION = ("__code__", "__defaults__", "__kwdefaults__")
_NOTES = frozenset({"__slotnames__"})  # that Python makes on a class when an object of it is copied or pickled


@dataclass(frozen=True, eq=False)
class Place:
    """One holder with some of its names, and their values when it was looked at.

    Attributes:
        path: The holder, in words.
        holder: The object that `get` reads from.
        get: Gives the values, in the order of `names`.
        names: The names.
        values: The values.
        known: All names that the holder had, if a new one matters; otherwise None.
        free: Names that may come and go.
        rare: Names whose values change so rarely that they are compared in turns.
    """

    path: str
    holder: Any
    get: Callable[[Any], Iterable[Any]]
    names: tuple[Any, ...]
    values: tuple[Any, ...]
    known: frozenset[Any] | None = None
    free: frozenset[Any] = frozenset()
    rare: frozenset[Any] = frozenset()

    @classmethod
    def of_mapping(cls, path: str, holder: Any, names: Iterable[Any], *, sized: bool = True) -> Place:
        """Some items of a dictionary, or some attributes of a class, its bases left out."""
        names, mapping = _at_least_two(names), mapping_of(holder)
        get = itemgetter(*names) if names else _nothing
        return cls(path, holder, get, names, tuple(get(mapping)), frozenset(mapping) if sized else None)

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
        return cls(path, holder, get, tuple(range(len(values))), values, frozenset(range(len(values))))

    @property
    def size(self) -> int | None:
        """Number of all entries, if a new one matters; otherwise None."""
        return None if self.known is None else len(self.known)

    @property
    def is_complete(self) -> bool:
        """Whether a new or a lost name always shows in the number of entries or in a failing look-up."""
        return self.has_items or (not self.free and self.known == frozenset(self.names))

    @property
    def is_whole(self) -> bool:
        """Whether it is all of a plain container."""
        return type(self.holder) in _PLAIN_CONTAINERS and self.known is not None and self.is_complete

    @property
    def is_of_attributes(self) -> bool:
        """Whether values are looked up as attributes, through slots and base classes."""
        return isinstance(self.get, attrgetter)

    @property
    def key(self) -> tuple[int, type]:
        """Identity of the holder, and the way of reading it."""
        return id(self.holder), type(self.get)

    def named(self) -> Iterator[tuple[Any, Any]]:
        """Names with values."""
        return zip(self.names, self.values, strict=True)

    def part(self, names: Collection[Any]) -> Place:
        """Some of the names, without a look at others."""
        kept = [name for name in dict.fromkeys(self.names) if name in names]
        if self.is_of_attributes:
            return Place.of_attributes(self.path, self.holder, kept)
        return Place.of_mapping(self.path, self.holder, kept, sized=False)

    def within(self, other: Place, ignored: Collection[tuple[str, Any]] = ()) -> Place | None:
        """The part that holds the same values in `other`, and is not ignored; None if that is nothing."""
        was = dict(other.named())
        free = {name for path, name in ignored if path == self.path}
        if self.known is not None and other.known is not None:
            free |= self.known ^ other.known
        kept = [n for n, value in self.named() if n in was and was[n] is value and n not in free]
        if self.has_items:
            return None if free or len(kept) < len(self.names) else self
        if not kept and self.known is None:
            return None
        known = None if self.known is None else self.known - free
        return replace(self.part(kept), known=known, free=frozenset(free), rare=self.rare)

    def has_its_names(self) -> bool:
        """Whether no name is new or lost, those apart that may come and go."""
        return self.known is None or not self._new_or_lost()

    def differences(self) -> Iterator[tuple[Any, str]]:
        """Every name that is new, lost or has another value, and what happened, in words.

        The name is None if an item has none.
        """
        holder = mapping_of(self.holder)
        if self.has_items:
            yield from self._changed_items(holder)
            return
        known = self.known is not None
        for name in sorted(self._new_or_lost() if known else (), key=str):
            yield name, f"{self.path}.{name} was {'added' if name in holder else 'removed'}"
        read = getattr if self.is_of_attributes else _item
        for name, was in dict(self.named()).items():
            try:
                if not _is_same(read(holder, name), was):
                    yield name, f"{self.path}.{name} was replaced"
            except (AttributeError, LookupError):
                if not known:  # else it was named above
                    yield name, f"{self.path}.{name} was removed"

    def _changed_items(self, holder: Any) -> Iterator[tuple[Any, str]]:
        if len(holder) != self.size:
            yield None, f"{self.path} got or lost an item"
            return
        for name, value, was in zip(self.names, self.get(holder), self.values, strict=True):
            if not _is_same(value, was):
                yield name, f"{self.path}.{name} was replaced"

    def with_notes(self) -> Place:
        """The same, after Python has noted something on a class."""
        if self.known is None or self.has_items:
            return self
        return replace(self, known=self.known | _NOTES.intersection(mapping_of(self.holder)))

    def _new_or_lost(self) -> set[Any]:
        """Names that are new or lost, those apart that may come and go."""
        present = set(mapping_of(self.holder)) - self.free
        return (present ^ (self.known or frozenset())) - _NOTES

    @property
    def has_items(self) -> bool:
        """Whether its names are numbers of items."""
        return self.get is tuple or self.get is _VALUES


def mapping_of(holder: Any) -> Any:
    """The dictionary of a class; any other holder itself."""
    return vars(holder) if isinstance(holder, type) else holder


def _is_same(value: Any, was: Any) -> bool:
    """Whether it is the same object, or a number or text that nobody can tell apart from it."""
    if value is was or type(value) is not type(was):
        return value is was
    if isinstance(was, tuple):
        return len(value) == len(was) and all(map(_is_same, value, was))
    return type(was) in _EQUAL and repr(value) == repr(was)  # 0.0 equals -0.0, but is another number


def _item(mapping: Any, name: Any) -> Any:
    return mapping[name]


def _at_least_two(names: Iterable[Any]) -> tuple[Any, ...]:
    """The names; a single one twice, since getters return a lone value for a lone name."""
    kept = tuple(names)
    return kept * 2 if len(kept) == 1 else kept


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()
