"""What objects do in a forked process.

A thread that holds a lock does not exist there, and would never release it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_ALIVE: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def in_every_child(what: T, renew: Callable[[T], None]) -> None:
    """Call `renew` with an object in every process that is forked from this one, for as long as the object lives."""
    _ALIVE[what] = renew


def _renew_all() -> None:
    for what, renew in list(_ALIVE.items()):
        renew(what)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_all)
