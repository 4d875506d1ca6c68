"""Finds the places (`bac.plan.places`) that a denoising run may read, from its modules on.

Of every module all attributes are watched, of other objects those that the executed code names (`bac.plan.reads`).
Containers are entered, so are objects within them, down to `_DEPTH`. Rare, and so compared in turns where Python has no
tags, are the code of functions, class attributes that no code names, and what belongs to Python, PyTorch and `bac`. The
``forward`` of every class, and `torch.nn.functional`, are compared each time.
"""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Thread
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Generator, Tensor, nn

from bac.caching.interceptors.patch import Interceptor
from bac.plan.places import OF_FUNCTION, Place
from bac.plan.reads import IMPLICIT, Reads
from bac.plan.refusal import Refusal

_DEPTH = 5  # holders within a module's attribute; a node of OmegaConf lies three deep
_MOST_ITEMS = 500  # a larger container, such as a vocabulary, is not entered
_MOST_PLACES = 50_000

_CLASS = ("__class__",)
_READ_ALL = frozenset({"vars", "__dict__", "asdict", "astuple", "to_dict", "model_dump"})  # names none of them
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_REGISTRIES = ("_parameters", "_buffers", "_modules")
# What PyTorch keeps in every module besides its numbers. The replayer looks at the hooks among them itself.
_BOOKKEEPING = frozenset(vars(nn.Module()))
_BASIC = {*sys.stdlib_module_names, "torch", "bac"}
# Modules of Python that keep books about the process: threads that run, handlers that log. No run computes with them.
_BOOKKEEPERS = frozenset({
    "asyncio", "concurrent", "contextlib", "importlib", "inspect", "linecache", "logging", "multiprocessing",
    "threading", "tokenize", "traceback", "warnings", "weakref",
})  # fmt: skip
_COMPILER = ("torch._dynamo.", "torch._inductor.")  # PyTorch's keeps books of what it compiled, plans included
_MADE_BY_PYTHON = 1 << 9  # flag of classes whose attributes can be set (Py_TPFLAGS_HEAPTYPE)
_CLOSED = (
    str, bytes, int, float, complex, type(None), type, ModuleType, BuiltinFunctionType,
    Tensor, Generator, torch.dtype, torch.device, Interceptor, logging.Logger, Thread,
)  # fmt: skip


class Walk:
    """Collects places.

    Args:
        reads: What the run's code names.
        swapped: Attributes that a solver's interceptor replaces during a run: object and name.
    """

    def __init__(self, reads: Reads, swapped: Sequence[tuple[object, str]] = ()) -> None:
        self._names = reads.names
        self._reads_all = not _READ_ALL.isdisjoint(reads.names)
        self._swapped = {(id(vars(thing)), name) for thing, name in swapped}
        self._seen: dict[int, Any] = {}  # keeps what it saw, so that no identity is used twice
        self._types: dict[type, None] = {}
        self.places: list[Place] = []

    def module(self, path: str, module: nn.Module, *, is_part: bool = True) -> None:
        """A module, everything that it holds, and its sub-modules.

        Args:
            path: The module, in words.
            module: The module.
            is_part: It is a registered part of the owner, so the replayer looks at its hooks itself.

        Raises:
            Refusal: A module is compiled by TorchScript, or holds an object of TorchScript: packed, quantised weights.
        """
        if self._met(module):
            return
        if isinstance(module, torch.jit.ScriptModule):
            raise Refusal(
                f"{path} is compiled by TorchScript, where no change can be seen; use the module it was made of"
            )
        own = vars(module)
        names = [name for name in own if (id(own), name) not in self._swapped]
        self.places.append(Place.of_mapping(path, own, names))
        self.places.append(Place.of_attributes(path, module, _CLASS))
        self.places += [Place.of_mapping(path, own[registry], own[registry]) for registry in _REGISTRIES]
        if not is_part:
            self.places += [Place.of_mapping(f"{path}.{hooks}", own[hooks], own[hooks]) for hooks in _HOOKS]
        for name in names:
            if name not in _BOOKKEEPING:
                self.thing(f"{path}.{name}", own[name], depth=0)
        for name, child in own["_modules"].items():
            if child is not None:
                self.module(f"{path}.{name}", child, is_part=is_part)

    def thing(self, path: str, thing: Any, depth: int, *, whole: bool = True) -> None:
        """A value of any type. `whole`: all its attributes, not only those that the code names."""
        if isinstance(thing, nn.Module):
            self.module(path, thing, is_part=False)
            return
        if isinstance(thing, torch.ScriptObject):
            holder = path.rpartition(".")[0]
            what = "weights that PyTorch packed (quantize_dynamic), where no change can be seen"
            raise Refusal(f"{holder} holds {what}; leave that module in floating point")
        if isinstance(thing, type) and not _is_basic(thing.__module__):
            self._types[thing] = None  # a configuration may be a class
            return
        if isinstance(thing, ModuleType) and not _is_basic(thing.__name__):
            named = sorted(self._names.intersection(vars(thing)))
            self.places.append(Place.of_mapping(path, vars(thing), named, sized=False))
            return
        if depth > _DEPTH or isinstance(thing, _CLOSED) or len(self.places) > _MOST_PLACES or self._met(thing):
            return
        if isinstance(thing, FunctionType):
            if not str(thing.__module__).startswith("torch."):
                self._function(path, thing, depth)
        elif isinstance(thing, MethodType):
            self.thing(f"{path}.__self__", thing.__self__, depth + 1, whole=False)
            self.thing(path, thing.__func__, depth + 1)
        elif isinstance(thing, partial):
            place = Place.of_attributes(path, thing, ("func", "args", "keywords"))
            self.places.append(place)
            for name, value in place.named():
                self.thing(f"{path}.{name}", value, depth + 1, whole=False)
        elif isinstance(thing, (dict, list, tuple, set, deque)):
            self._container(path, thing, depth)
            if getattr(thing, "__dict__", None):  # of a sub-class
                self._object(path, thing, depth, whole=whole)
        elif depth == 0 or not isinstance(thing, frozenset):
            self._object(path, thing, depth, whole=whole)

    def classes(self) -> None:
        """All attributes of every class met so far, and of its bases; containers if the code names them."""
        for cls in dict.fromkeys(base for met in list(self._types) for base in met.__mro__):
            if cls.__flags__ & _MADE_BY_PYTHON:
                rare = vars(cls).keys() - IMPLICIT - (frozenset() if _is_basic(cls.__module__) else self._names)
                place = Place.of_mapping(cls.__qualname__, cls, vars(cls))
                self.places.append(replace(place, rare=frozenset(rare)))
                for name in self._names.intersection(vars(cls)):
                    self.thing(f"{cls.__qualname__}.{name}", vars(cls)[name], depth=1, whole=False)

    def variables(self, reads: Reads) -> None:
        """The global variables that the code names, and what it names in modules (``F.linear``)."""
        found: dict[int, tuple[dict[str, Any], set[str]]] = {}
        for namespace, name, names in reads.variables:
            found.setdefault(id(namespace), (namespace, set()))[1].add(name)
            value = namespace[name]
            if isinstance(value, ModuleType):
                inner = vars(value)
                found.setdefault(id(inner), (inner, set()))[1].update(names.intersection(inner))
        for namespace, chosen in found.values():
            path = str(namespace.get("__name__", "globals"))
            if path.partition(".")[0] in _BOOKKEEPERS or path.startswith(_COMPILER):
                continue
            place = Place.of_mapping(path, namespace, sorted(chosen), sized=False)
            self.places.append(replace(place, rare=frozenset(place.names)) if _is_basic(path) else place)
            for name, value in place.named():
                self.thing(f"{path}.{name}", value, depth=1, whole=False)

    def _function(self, path: str, function: FunctionType, depth: int) -> None:
        """Code, defaults and attributes of a function; the values of its attributes each time, the rest in turns."""
        place = Place.of_attributes(path, function, OF_FUNCTION)
        self.places.append(replace(place, rare=frozenset(place.names)))
        self.places.append(Place.of_mapping(path, vars(function), vars(function)))
        for name, value in list(vars(function).items()):
            self.thing(f"{path}.{name}", value, depth + 1, whole=False)

    def _container(self, path: str, thing: Any, depth: int) -> None:
        if len(thing) > _MOST_ITEMS:
            return
        if type(thing) in (dict, OrderedDict):
            self.places.append(Place.of_mapping(path, thing, thing))
        elif not isinstance(thing, tuple):
            self.places.append(Place.of_items(path, thing))
        items = thing.items() if isinstance(thing, Mapping) else enumerate(thing)
        for name, value in list(items):
            self.thing(f"{path}[{name!r}]", value, depth + 1, whole=False)

    def _object(self, path: str, thing: Any, depth: int, *, whole: bool) -> None:
        whole = whole or self._reads_all
        self._types[type(thing)] = None
        own = getattr(thing, "__dict__", None)
        if isinstance(own, dict):
            names = [n for n in own if (whole or n in self._names) and (id(own), n) not in self._swapped]
            place = Place.of_mapping(path, own, names, sized=whole)
            self.places.append(Place.of_attributes(path, thing, _CLASS))
        else:
            slots = [n for n in _slots(type(thing)) if (whole or n in self._names) and hasattr(thing, n)]
            place = Place.of_attributes(path, thing, (*slots, *_CLASS))
        self.places.append(place)
        for name, value in place.named():
            self.thing(f"{path}.{name}", value, depth + 1, whole=False)

    def _met(self, thing: Any) -> bool:
        """Whether it was seen before; it is from now on."""
        if id(thing) in self._seen:
            return True
        self._seen[id(thing)] = thing
        if isinstance(thing, nn.Module):
            self._types[type(thing)] = None
        return False


def _is_basic(module: str) -> bool:
    """Whether a module belongs to Python, PyTorch or `bac`, whose variables hardly anybody replaces."""
    return module.partition(".")[0] in _BASIC and module != "torch.nn.functional"


def _slots(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots
