"""Notes which code a denoising run executes, and so which names it can read.

Python does not report reads of attributes. It does report every function that is entered, and the code of a function
lists the names that it reads. A name that no executed code lists can be read only by a computed string.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from bac.plan.surroundings import no_collection

IMPLICIT = frozenset({"forward", "__call__", "__getattr__", "__getattribute__"})  # read without being named
_LONGEST_NAME = 40  # a longer string in the code is a message, not a name


class Reads:
    """The code that ran within `noting`, with the globals of its module."""

    def __init__(self) -> None:
        self.codes: dict[CodeType, dict[str, Any]] = {}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Within the context, note the functions that this thread enters. No garbage is collected meanwhile."""
        before = sys.getprofile()
        with no_collection():
            sys.setprofile(self._note)
            try:
                yield
            finally:
                sys.setprofile(before)

    @property
    def names(self) -> frozenset[str]:
        """Names that the code reads, as an attribute, a global variable, or a string (``getattr``, a key)."""
        return frozenset(name for code in self.codes for name in _names(code))

    @property
    def variables(self) -> Iterator[tuple[dict[str, Any], str, frozenset[str]]]:
        """Global variables that the code reads: the module's globals, the name, and all names of the same code."""
        for code, namespace in self.codes.items():
            names = frozenset(code.co_names)
            yield from ((namespace, name, names) for name in code.co_names if name in namespace)

    def _note(self, frame: Any, event: str, _: Any) -> None:
        if event == "call":
            self.codes.setdefault(frame.f_code, frame.f_globals)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        for part in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(part, str) and len(part) <= _LONGEST_NAME:
                yield part
