"""Weights laid out anew, kept once for all plans: a plan for another shape of the arguments needs the same ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from bac.plan.packed import pack

_LAID_OUT: WeakValueDictionary[Hashable, Tensor] = WeakValueDictionary()  # alive while a plan holds them


def column_major(matrix: Tensor) -> Tensor:
    """A matrix with the same numbers in column-major order. The result may be shared: nobody must write into it.

    Args:
        matrix: A weight, `[out, in]`.
    """
    return _laid_out(matrix, _transposed)


def in_panels(matrix: Tensor) -> Tensor:
    """A matrix packed for `bac.plan.packed`. The result may be shared: nobody must write into it.

    Args:
        matrix: A weight, `[in, out]`.
    """
    return _laid_out(matrix, pack)


def _transposed(matrix: Tensor) -> Tensor:
    return matrix.t().contiguous().t()


def _laid_out(matrix: Tensor, layout: Callable[[Tensor], Tensor]) -> Tensor:
    place = matrix.untyped_storage().data_ptr(), matrix.storage_offset(), matrix.shape, matrix.stride(), matrix.dtype
    laid_out, known = layout(matrix), _LAID_OUT.get((layout, place))
    if known is not None and torch.equal(known, laid_out):  # its memory may hold other numbers by now
        return known
    _LAID_OUT[layout, place] = laid_out
    return laid_out
