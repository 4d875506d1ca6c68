"""A dictionary whose keys are tensors."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import ref

from torch import Tensor

T = TypeVar("T")


class TensorMap(Generic[T]):
    """Maps tensors, by identity, to items without keeping the tensors alive."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[ref[Tensor], T]] = {}

    def get(self, tensor: Tensor) -> T | None:
        """The item last set for `tensor`, or `None`."""
        entry = self._entries.get(id(tensor))
        # Python gives the id of a dead tensor to a new one, so the reference decides.
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def set(self, tensor: Tensor, item: T) -> None:
        """Remember `item` for as long as `tensor` lives."""
        self._entries[id(tensor)] = ref(tensor), item
