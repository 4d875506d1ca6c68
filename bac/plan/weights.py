"""Notices that a weight was moved or written to.

PyTorch counts the writes into a tensor, but not those through ``parameter.data``. To notice these on the CPU, some
numbers of every weight are compared as bytes: 8 per weight at every chunk, another 8 at the next, 128 in all, evenly
spread. A write to a whole weight, or to half of it, is therefore noticed at once; one to a 32nd within 16 chunks; one
to a few numbers perhaps never. On a GPU a comparison would cost a synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter

import torch
from torch import Tensor

_NUMBERS = 4  # compared at one spot
_SPOTS = 2  # compared per weight and chunk
_TURNS = 16  # chunks until the same spots are compared again


class Weights:
    """The weights that a plan has baked in, or reads.

    Args:
        weights: Tensors that the recorded run read.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        self._weights = list(weights)
        self._versioned = [weight for weight in self._weights if not weight.is_inference()]
        self._versions = self._now()
        self._pointers = list(map(Tensor.data_ptr, self._weights))
        spots = [spot for weight in self._weights for spot in _spots(weight)]
        self._probes = [[view for turns in spots for view in turns[turn::_TURNS]] for turn in range(_TURNS)]
        self._bytes = [b"".join(views) for views in self._probes]
        self._turn = 0

    def difference(self) -> str | None:
        """What happened to a weight, in words; None if nothing did."""
        if list(map(Tensor.data_ptr, self._weights)) != self._pointers:
            return "weights were moved"
        self._turn = turn = (self._turn + 1) % _TURNS
        if self._now() != self._versions or b"".join(self._probes[turn]) != self._bytes[turn]:
            return "weights were written to"
        return None

    def are_same(self) -> bool:
        """Whether nothing happened to any weight, at any spot."""
        return (
            list(map(Tensor.data_ptr, self._weights)) == self._pointers
            and self._now() == self._versions
            and list(map(b"".join, self._probes)) == self._bytes
        )

    def _now(self) -> list[int]:
        return list(map(attrgetter("_version"), self._versioned))


def _spots(weight: Tensor) -> Iterator[list[memoryview]]:
    """Live views of a few numbers each, evenly spread over a weight, as bytes. They also keep its memory in use."""
    if weight.device.type != "cpu" or not weight.is_contiguous() or not weight.numel():
        return
    flat = weight.detach().view(-1)
    data, size = flat.view(torch.uint8).numpy(), weight.element_size()
    if flat.numel() <= _NUMBERS * _SPOTS * _TURNS:  # small enough to compare all of it, at every chunk
        yield [memoryview(data)] * _TURNS
        return
    starts = [place * flat.numel() // (_SPOTS * _TURNS) for place in range(_SPOTS * _TURNS)]
    yield [memoryview(data[size * start : size * (start + _NUMBERS)]) for start in starts]
