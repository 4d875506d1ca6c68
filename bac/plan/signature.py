"""The signature of a sampler's arguments: everything but the numbers in tensors and the states of generators."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Generator, Tensor

from bac.caching.interceptors.nested import like
from bac.plan.settings import settings

Leaves = tuple[Any, ...]


def flatten(argument: Any) -> tuple[list[Any], Hashable]:
    """Take tuples, lists and mappings apart.

    Returns:
        The leaves in order, and a key of their structure.
    """
    if isinstance(argument, Mapping):
        parts: Sequence[Any] = list(argument.values())
        kind: Hashable = (type(argument), *argument)
    elif isinstance(argument, (tuple, list)):
        parts, kind = argument, (type(argument), len(argument))
    else:
        return [argument], None
    leaves, keys = [], []
    for part in parts:
        inner, key = flatten(part)
        leaves += inner
        keys.append(key)
    return leaves, (kind, *keys)


def replace_leaves(argument: Any, replace: Callable[[Any], Any]) -> Any:
    """The same structure with every leaf replaced."""
    if isinstance(argument, Mapping):
        return like(argument, {name: replace_leaves(part, replace) for name, part in argument.items()})
    if isinstance(argument, (tuple, list)):
        parts = [replace_leaves(part, replace) for part in argument]
        return type(argument)(*parts) if hasattr(argument, "_fields") else type(argument)(parts)
    return replace(argument)


def fresh(argument: Any) -> Any:
    """The same leaves in dictionaries, lists and tuples of their own, so that a callee may write into those."""
    if type(argument) is dict:
        return {name: fresh(part) for name, part in argument.items()}
    if type(argument) in (list, tuple):
        return type(argument)(map(fresh, argument))
    return argument


def signature(leaves: Sequence[Any], structure: Hashable) -> Hashable:
    """The key of a plan.

    It includes which leaves are the same object, because a recording tells arguments apart by identity. It also
    includes the global settings that change how operators compute (`bac.plan.settings`).

    Raises:
        TypeError: An argument other than a tensor or generator cannot be hashed.
    """
    first: dict[int, int] = {}
    parts: list[Hashable] = []
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            twin = first.setdefault(id(leaf), place)
            parts.append((twin, leaf.shape, leaf.stride(), leaf.dtype, leaf.device))
        elif isinstance(leaf, Generator):
            parts.append((first.setdefault(id(leaf), place), leaf.device))
        else:
            parts.append((type(leaf), _value(leaf)))
    return structure, tuple(parts), settings()


def numbers(leaves: Sequence[Any], places: Sequence[int]) -> Hashable:
    """The numbers in some of the arguments, as bytes. Of a GPU's they are copied to the host, all at once.

    Args:
        leaves: The arguments, flattened.
        places: Positions of tensors among them.
    """
    by_device: dict[torch.device, list[Tensor]] = {}
    for place in places:
        by_device.setdefault(leaves[place].device, []).append(leaves[place].reshape(-1).view(torch.uint8))
    return tuple([torch.cat(parts).cpu().numpy().tobytes() for parts in by_device.values()])


def _value(leaf: Any) -> Hashable:
    """The leaf, or what tells it apart: 0.0 equals -0.0, and NaN not even itself.

    Of an object that equals only itself it is a weak reference: keys are kept, and pictures may lie in the object.
    """
    if isinstance(leaf, (float, complex)):
        return repr(leaf)
    hash(leaf)  # raises here, as documented, rather than at the caller's look-up
    if getattr(type(leaf), "__hash__", None) is object.__hash__:
        with suppress(TypeError):  # some classes take no weak reference
            return weakref.ref(leaf)
    return leaf  # type: ignore[no-any-return]
