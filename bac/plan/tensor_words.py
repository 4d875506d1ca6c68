"""Where in memory PyTorch keeps what changes when a tensor is written to or moved.

The object behind a tensor (``c10::TensorImpl``) holds its strides and its offset in a storage, and points to this
storage and to the count of its writes. `bac.plan.tags` gathers these words for all weights at once, in a third of the
time that ``data_ptr()`` and ``_version`` take for one after the other. No place is taken for granted: each is looked
for, in tensors whose state is known. Memory is only read, and only within objects that are kept meanwhile.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from bac.plan.tags import Numbers, Tags, Word

_WORD = 8  # bytes
_TENSOR, _STORAGE, _COUNT = 22, 8, 4  # words read of a tensor's object, of its storage's, of its count's; all have more
_TENSORS = 16  # that are looked at
_FIRST = 2  # before it lie the address of its methods, and how often it is referred to


@dataclass(frozen=True)
class Layout:
    """Places of words.

    Attributes:
        own: Of the address of a tensor's object, in the Python object; `torch.utils.swap_tensors` changes it.
        storage: Of the storage's address, in a tensor's object.
        counter: Of the address of the count of writes, in a tensor's object.
        offset: Of the offset in the storage, in a tensor's object.
        strides: Of sizes and strides of a matrix, in a tensor's object.
        data: Of the data's address, in a storage's object.
        count: Of the number, in the object that counts.
    """

    own: int
    storage: int
    counter: int
    offset: int
    strides: tuple[int, ...]
    data: int
    count: int


def word_of_handle(tensor: Tensor) -> Word:
    """What changes when a tensor gets another object (`torch.utils.swap_tensors`).

    While it is the same, the words of `words_of_tensor` may be read; the old object may be gone otherwise.
    """
    assert LAYOUT is not None, "the places are not known"
    return tensor, id(tensor) + _WORD * LAYOUT.own


def words_of_tensor(tensor: Tensor) -> tuple[Word, ...]:
    """What changes when a tensor is moved, or written to by PyTorch.

    Raises:
        RuntimeError: The tensor has no storage.
    """
    assert LAYOUT is not None, "the places are not known"
    shared = tensor.detach()  # keeps the storage and the count, if the tensor gets others
    storage, counter = shared.untyped_storage()._cdata, _read(tensor._cdata, _TENSOR)[LAYOUT.counter]
    places = (LAYOUT.storage, LAYOUT.counter, LAYOUT.offset, *LAYOUT.strides)
    own = [(tensor, tensor._cdata + _WORD * place) for place in places]
    counted = [(shared, counter + _WORD * LAYOUT.count)] if counter else []  # inference tensors count no writes
    return (*own, *counted, (shared, storage + _WORD * LAYOUT.data))


def words_of_numbers(memory: object, start: int, size: int) -> tuple[Word, ...]:
    """The words that hold `size` bytes from the address `start` on, which `memory` keeps in use."""
    return tuple((memory, address) for address in range(start // _WORD * _WORD, start + size, _WORD))


def _read(address: int, length: int) -> list[int]:
    return list((ctypes.c_uint64 * length).from_address(address))


def find() -> Layout | None:
    """The places in this PyTorch; None where tensors whose state is known do not show them.

    A word that a tensor does not use, as the sizes beyond its dimensions, holds whatever lay there, and can look like
    the one sought. So a place counts if it looks right in tensors of several sizes.
    """
    seen = [_Seen.of(length) for length in range(50, 50 + _TENSORS)]
    counters, offsets, strides = (
        sorted(set.intersection(*places))
        for places in zip(*((s.counters, s.offsets, s.strides) for s in seen), strict=True)
    )
    if not (len(counters) == len(offsets) == 1 and len(strides) == 4):
        return None
    tensor = seen[0].tensor
    storage = tensor.untyped_storage()
    python = _read(id(tensor), Tensor.__basicsize__ // _WORD).index(tensor._cdata)
    data = _read(storage._cdata, _STORAGE).index(tensor.data_ptr(), _FIRST)
    own = _read(tensor._cdata, _TENSOR)
    counts = set(range(1, _COUNT))
    for _ in range(3):
        tensor.add_(1)
        found = _read(own[counters[0]], _COUNT)
        counts = {place for place in counts if found[place] & 0xFFFFFFFF == tensor._version}
    (count,) = counts
    return Layout(python, own.index(storage._cdata, _FIRST), counters[0], offsets[0], tuple(strides), data, count)


@dataclass(frozen=True)
class _Seen:
    """Places that look right in one tensor; all are kept, so that the next ones lie elsewhere."""

    tensor: Tensor
    others: tuple[Tensor, ...]
    counters: set[int]
    offsets: set[int]
    strides: set[int]

    @classmethod
    def of(cls, length: int) -> _Seen:
        tensor = torch.zeros(length, device="cpu")
        shared, moved, part = tensor.detach(), tensor.data, tensor[37:]  # the first counts writes with `tensor`
        own, same, apart, rest = (_read(each._cdata, _TENSOR) for each in (tensor, shared, moved, part))
        matrix = torch.zeros(length, 7, device="cpu")
        turned = matrix.t()
        rows, columns = (_read(each._cdata, _TENSOR) for each in (matrix, turned))
        places = range(_FIRST, _TENSOR)
        return cls(
            tensor,
            (shared, moved, part, matrix, turned),
            {place for place in places if own[place] == same[place] != apart[place]},
            {place for place in places if (own[place], rest[place]) == (0, 37)},
            {place for place in places if rows[place] != columns[place] and rows[place] in (length, 7, 1)},
        )


def _is_right() -> bool:
    """Whether every kind of change changes a word, and nothing else does."""
    for change in (
        lambda tensor: tensor.add_(1),
        lambda tensor: setattr(tensor, "data", torch.ones(6, device="cpu")),
        lambda tensor: setattr(tensor, "data", tensor[1:]),
        lambda tensor: setattr(tensor, "data", tensor.t()),
        lambda tensor: tensor.untyped_storage().resize_(48),
    ):
        tensor = torch.zeros(2, 3, device="cpu")
        tags = Tags(words_of_tensor(tensor))
        before: Numbers = tags.now()
        tensor.sum()
        still = tags.now()
        change(tensor)
        if not bool((before == still).all()) or bool((before == tags.now()).all()):
            return False
    tensor, other = torch.zeros(2, device="cpu"), torch.ones(2, device="cpu")
    handle = Tags([word_of_handle(tensor)])
    first = handle.now()
    torch.utils.swap_tensors(tensor, other)  # type: ignore[no-untyped-call]
    return bool(first[0] != handle.now()[0])


LAYOUT: Layout | None = None
try:
    with torch.inference_mode(False), torch.no_grad():
        LAYOUT = find()
        AVAILABLE = LAYOUT is not None and _is_right()
except Exception:  # noqa: BLE001  (another PyTorch, which keeps it elsewhere)
    AVAILABLE = False
