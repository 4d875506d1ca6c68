"""Tells in a few microseconds which of many dictionaries, objects and functions changed.

CPython 3.12 gives a dictionary a new number, unique in the process, at every write (PEP 509), and keeps it at a fixed
place in the dictionary. At fixed places too are the address of an object's class and those of a function's code and
defaults. NumPy gathers thousands of such words in one loop, whose waits for memory overlap; to look at all items takes
a hundred times as long. Memory is only read, and only that of objects which are kept meanwhile. On other Pythons, of
which these places are not known, everything is visited.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import OrderedDict
from collections.abc import Sequence
from types import FunctionType, MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]
Word = tuple[object, int]  # an object, and the address of a word that it keeps in use
_WORD = 8  # bytes
_NUMBER, _CLASS, _FUNCTION = (
    (24,),
    (8,),
    (48, 56, 64),
)  # of a dictionary; of any object; its code and two kinds of defaults
_DICTIONARIES = (dict, OrderedDict)


class Tags:
    """Words at some addresses, and the objects that keep them in use."""

    def __init__(self, words: Sequence[Word]) -> None:
        self._kept = [holder for holder, _ in words]
        addresses = [address for _, address in words]
        self._places = np.array([(address - min(addresses)) // _WORD for address in addresses], dtype=np.intp)
        self._memory: Numbers = np.empty(0, np.uint64)
        if words:  # all memory between the first place and the last, of which nothing but the places is ever read
            length = int(self._places.max()) + 1
            self._memory = np.frombuffer((ctypes.c_uint64 * length).from_address(min(addresses)), np.uint64)

    def now(self) -> Numbers:
        """The words now."""
        return self._memory.take(self._places)


def words_of_dictionary(holder: Any) -> tuple[Word, ...]:
    """What changes with the items of a dictionary or the attributes of a class; nothing for other holders."""
    if isinstance(holder, type):
        proxy = vars(holder)
        holder = gc.get_referents(proxy)[0] if type(proxy) is MappingProxyType else proxy
    return tuple((holder, id(holder) + place) for place in _NUMBER) if type(holder) in _DICTIONARIES else ()


def words_of_class(holder: object) -> tuple[Word, ...]:
    """What changes with the class of an object; nothing for one that calls itself something else."""
    return tuple((holder, id(holder) + place) for place in _CLASS) if type(holder) is holder.__class__ else ()


def words_of_function(holder: object) -> tuple[Word, ...]:
    """What changes with code and defaults of a Python function; nothing for others."""
    return tuple((holder, id(holder) + place) for place in _FUNCTION) if type(holder) is FunctionType else ()


def _is_available() -> bool:
    """Whether this Python is known to have the words, and has them where they are expected."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] != (3, 12):
        return False

    def probe(one: int = 1, *, other: int = 1) -> None: ...

    known: dict[str, int] = {"a": 1}
    tags = Tags([*words_of_dictionary(known), *words_of_class(known), *words_of_function(probe)])
    before, still = tags.now(), tags.now()
    known["a"] = 2
    after = tags.now()
    function = [id(dict), id(probe.__code__), id(probe.__defaults__), id(probe.__kwdefaults__)]
    return bool(before[0] == still[0] != after[0] and list(after[1:]) == list(before[1:]) == function)


AVAILABLE = _is_available()
