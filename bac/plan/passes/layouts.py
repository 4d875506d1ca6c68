"""Weights laid out anew, kept once for all plans: a plan for another shape of the arguments needs the same ones."""

from __future__ import annotations

from collections.abc import Hashable
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_LAID_OUT: WeakValueDictionary[Hashable, Tensor] = WeakValueDictionary()  # alive while a plan holds them


def column_major(matrix: Tensor) -> Tensor:
    """A matrix with the same numbers in column-major order. The result may be shared: nobody must write into it.

    Args:
        matrix: A weight, `[out, in]`.
    """
    key = matrix.untyped_storage().data_ptr(), matrix.storage_offset(), matrix.shape, matrix.stride(), matrix.dtype
    known = _LAID_OUT.get(key)
    if known is not None and torch.equal(known, matrix):  # its memory may hold other numbers by now
        return known
    laid_out = matrix.t().contiguous().t()
    _LAID_OUT[key] = laid_out
    return laid_out
