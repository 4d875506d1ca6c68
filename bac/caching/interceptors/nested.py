"""Tensors within the tuples, lists and mappings that blocks return."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], output: Any) -> Any:
    """The same tuples, lists and mappings with every tensor replaced."""
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, Mapping):
        return like(output, {name: map_tensors(function, part) for name, part in output.items()})
    if isinstance(output, tuple):
        parts = [map_tensors(function, part) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)
    if isinstance(output, list):
        return [map_tensors(function, part) for part in output]
    return output


def tensors_within(output: Any) -> Iterator[Tensor]:
    """The tensors that `map_tensors` replaces."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from tensors_within(part)


def like(output: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """A mapping of the same class, whose items may be attributes, too."""
    if type(output) is dict or not isinstance(output, MutableMapping):
        return items
    made = copy.copy(output)
    for name, part in items.items():
        made[name] = part
    return made
