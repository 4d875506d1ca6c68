"""Notices that a weight was moved or written to.

PyTorch counts the writes into a tensor, but not those through ``parameter.data``. To notice these on the CPU, some
numbers of every weight are compared: two times 16 bytes at every chunk, another two at the next, 32 in all, evenly
spread. A write to a whole weight, or to half of it, is therefore noticed at once; one to a 32nd within 16 chunks; one
to a few numbers perhaps never. On a GPU a comparison would cost a synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter

import torch
from torch import Tensor

from bac.plan import tensor_words
from bac.plan.tags import Tags, Word

_LINE = 64  # bytes that come from memory together
_BYTES = 16  # compared at one spot
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
        self._handles, self._tags = _tags(self._weights)
        self._same = self._handles.now().tobytes()
        self._known = self._tags and self._tags.now().tobytes()  # read first, so that no write falls in between
        self._known_counts, self._known_places = self._counts(), self._places()
        spots = [spots for weight in self._weights for spots in _spots(weight)]
        self._probes = [Tags([word for turns in spots for word in turns[turn]]) for turn in range(_TURNS)]
        self._numbers = [probe.now().tobytes() for probe in self._probes]
        self._turn = 0

    def difference(self) -> str | None:
        """What happened to a weight, in words; None if nothing did."""
        self._turn = turn = (self._turn + 1) % _TURNS
        if self._handles.now().tobytes() != self._same:
            return "weights were moved"
        if self._tags is None or (now := self._tags.now().tobytes()) != self._known:
            if self._places() != self._known_places:
                return "weights were moved"
            if self._counts() != self._known_counts:
                return "weights were written to"
            self._known = self._tags and now  # what changed does not matter
        return None if self._probes[turn].now().tobytes() == self._numbers[turn] else "weights were written to"

    def are_same(self) -> bool:
        """Whether nothing happened to any weight, at any spot."""
        return (
            self._handles.now().tobytes() == self._same
            and self._places() == self._known_places
            and self._counts() == self._known_counts
            and [probe.now().tobytes() for probe in self._probes] == self._numbers
        )

    def _places(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(weight.data_ptr(), weight.stride()) for weight in self._weights]

    def _counts(self) -> list[int]:
        return list(map(attrgetter("_version"), self._versioned))


def _tags(weights: Sequence[Tensor]) -> tuple[Tags, Tags | None]:
    """What changes with any of them, in memory: their objects, and the words of these; None where that is not known."""
    if not tensor_words.AVAILABLE:
        return Tags([]), None
    words = (word for weight in weights for word in tensor_words.words_of_tensor(weight))
    handles = map(tensor_words.word_of_handle, weights)
    first, second = (sorted(found, key=itemgetter(1)) for found in (handles, words))  # neighbours together
    return Tags(first), Tags(second)


def _spots(weight: Tensor) -> Iterator[list[tuple[Word, ...]]]:
    """For every turn the words of a weight that are compared in it. They also keep its memory in use."""
    if weight.device.type != "cpu" or not weight.numel() or weight.layout != torch.strided:
        return
    begin, item, kept = weight.data_ptr(), weight.element_size(), weight.detach()
    if weight.is_contiguous() and weight.numel() * item <= _SPOTS * _LINE:  # compare all of it, at every chunk
        yield [tensor_words.words_of_numbers(kept, begin, weight.numel() * item)] * _TURNS
        return
    for spot in range(_SPOTS):
        places = (weight.numel() * (turn + spot * _TURNS) // (_SPOTS * _TURNS) for turn in range(_TURNS))
        yield [tensor_words.words_of_numbers(kept, *_bytes_at(weight, place, begin, item)) for place in places]


def _bytes_at(weight: Tensor, place: int, begin: int, item: int) -> tuple[int, int]:
    """Address and number of the bytes to compare at a place among a weight's numbers."""
    if weight.is_contiguous():
        start = max((begin + place * item) // _LINE * _LINE, begin)
        return start, min(_BYTES, begin + weight.numel() * item - start)
    offset = 0
    for size, stride in zip(reversed(weight.shape), reversed(weight.stride()), strict=True):
        place, index = divmod(place, size)
        offset += index * stride
    return begin + offset * item, item
