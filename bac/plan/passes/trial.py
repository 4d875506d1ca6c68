"""Random numbers for trials: does an operator keep every bit in another shape or layout?

Each sum in a matrix product is taken in an order that BLAS chooses by shape, layout and dtype. Numbers show the order
if they have all their digits and there are many of them. Weights often have not: sums of float32 weights in float64 are
all but exact, and a bias of zeros hides where a sum begins. So a trial draws weights too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, prod

import torch
from torch import Tensor

from bac.plan.program import Meta

_CACHE_LINE = 64  # bytes; PyTorch's own memory begins on one
_NUM_RESULTS = 4096  # compared in one trial; where orders differed, one result in 8 to 75 did


def shows_order(dtype: torch.dtype) -> bool:
    """Whether a trial on random numbers shows if sums are taken in another order.

    In 16 bits the rounding at the end hides it, for all but one number in thousands: a trial passes, and a run differs.
    """
    return dtype.itemsize > 2


def draws(shape: tuple[int, ...]) -> Iterator[torch.Generator]:
    """Generators, as many as it takes to compare thousands of results that come in this shape."""
    for seed in range(ceil(_NUM_RESULTS / max(prod(shape), 1))):
        yield torch.Generator().manual_seed(seed)


def random_numbers(meta: Meta, generator: torch.Generator) -> Tensor:
    """Numbers from -1 to 1 in the layout of `meta`, offset included: BLAS may look at where in memory a row begins."""
    numbers = torch.empty(meta.shape, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    return like(numbers.to(meta.device, meta.dtype), meta)


def random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers from -1 to 1 in the layout of a tensor that exists.

    They require gradients if it does, which tensors made in inference mode cannot: `linear` folds the rows of its input
    differently then.
    """
    offset = tensor.data_ptr() % _CACHE_LINE // tensor.itemsize
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        numbers = random_numbers(replace(Meta.of(tensor, 0), offset=offset), generator)
    return numbers.detach().requires_grad_(tensor.requires_grad)


def like(tensor: Tensor, meta: Meta) -> Tensor:
    """The same numbers in the strides and at the offset of `meta`. An expanded dimension repeats its first entry."""
    seen = tensor
    for dim, stride in enumerate(meta.stride):
        seen = seen.narrow(dim, 0, 1) if stride == 0 and seen.shape[dim] > 1 else seen
    length = 1 + sum((size - 1) * stride for size, stride in zip(seen.shape, meta.stride, strict=True))
    offset = meta.offset % (_CACHE_LINE // tensor.itemsize)
    memory = torch.empty(offset + max(length, 1), dtype=tensor.dtype, device=tensor.device)
    return memory.as_strided(seen.shape, meta.stride, offset).copy_(seen).expand(tensor.shape)
