"""Puts back what a policy remembers, after runs that nobody asked for.

A recording runs the sampler again and again, some of the times on other numbers. A history of observations, a hidden
state, a counter or running statistics would be those of such a run afterwards, and the next actions would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from bac.plan.places import Place, mapping_of

_GONE = object()


class State:
    """What lies in some places, as it was when it was looked at.

    Of attributes and items it keeps the objects; of tensors other than parameters, of arrays and of random generators
    the numbers, too.

    Args:
        places: The places.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        values = {id(value): value for place in places for value in place.values}.values()
        tensors = [v for v in values if isinstance(v, Tensor) and not isinstance(v, nn.Parameter)]
        self._tensors = [(tensor, _version(tensor), tensor.detach().clone()) for tensor in tensors]
        self._arrays = [(array, array.copy()) for array in values if isinstance(array, np.ndarray)]
        self._generators = [(g, g.get_state()) for g in values if isinstance(g, Generator)]
        holders = [place.holder for place in places if place.has_items]
        self._mappings = [(found, list(found.items())) for found in holders if isinstance(found, Mapping)]

    def put_back(self) -> None:
        """Make all as it was."""
        for place in self._places:
            with suppress(Exception):  # what cannot be written to was not written to
                _put_back(place)
        for mapping, items in self._mappings:
            with suppress(Exception):
                _refill(mapping, items)
        with torch.inference_mode():
            for tensor, version, numbers in self._tensors:
                if version is None or tensor._version != version:
                    tensor.copy_(numbers)
        for array, kept in self._arrays:
            if array.flags.writeable:
                array[...] = kept
        for generator, state in self._generators:
            generator.set_state(state)


def _put_back(place: Place) -> None:
    holder, values = place.holder, place.values
    if place.has_items:
        if not isinstance(holder, Mapping) and not _are_same(tuple(holder), values):
            holder.clear()
            holder.update(values) if isinstance(holder, set) else holder.extend(values)
    elif place.is_of_attributes:
        for name, value in place.named():
            if getattr(holder, name, _GONE) is not value:
                setattr(holder, name, value)
    elif isinstance(mapping := mapping_of(holder), dict):
        for name, value in place.named():
            if mapping.get(name, _GONE) is not value:
                mapping[name] = value
        for name in set(mapping) - place.known if place.known is not None else ():
            del mapping[name]


def _refill(mapping: Any, items: Sequence[tuple[Any, Any]]) -> None:
    """Give a mapping that is no plain dictionary the items that it had."""
    names, values = list(mapping), list(mapping.values())
    if names != [name for name, _ in items] or not _are_same(values, [value for _, value in items]):
        mapping.clear()
        mapping.update(items)


def _are_same(now: Sequence[Any], were: Sequence[Any]) -> bool:
    return len(now) == len(were) and all(map(is_, now, were))


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to; None if PyTorch does not count it."""
    return None if tensor.is_inference() else tensor._version


class Writes:
    """Tells whether a run wrote into its arguments.

    Args:
        leaves: The arguments, flattened, before the run.
    """

    def __init__(self, leaves: Sequence[Any]) -> None:
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.layout == torch.strided]
        self._counted = [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]
        self._copied = [(tensor, tensor.clone()) for tensor in tensors if tensor.is_inference()]

    def happened(self) -> bool:
        """Whether the numbers of an argument are others now."""
        return any(tensor._version != version for tensor, version in self._counted) or not all(
            bool(((now == was) | ((now != now) & (was != was))).all()) for now, was in self._copied
        )
