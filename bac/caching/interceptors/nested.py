"""Tensors within the tuples and lists that blocks return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], output: Any) -> Any:
    """The same tuples and lists with every tensor replaced."""
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, tuple):
        return tuple(map_tensors(function, part) for part in output)
    if isinstance(output, list):
        return [map_tensors(function, part) for part in output]
    return output
