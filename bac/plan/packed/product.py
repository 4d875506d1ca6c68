"""A matrix product of few rows with a packed weight: an operator in C++, compiled when it is first needed.

A chunk has ten or twenty tokens, so the weight is most of what a product reads. When a plan is built, it is laid out in
the order in which the operator reads it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_ROWS = 32
_COLUMNS = 16  # of a panel, as in product.cpp
_SOURCE = Path(__file__).with_name("product.cpp")


@dataclass(frozen=True)
class Kernel:
    """The operator, or why there is none.

    Attributes:
        operator: ``packed_product(x, packed, added, features)``; None if it cannot be compiled here. `x` is
            `[..., K]` with at most `MOST_ROWS` rows, `packed` the result of `pack`, `added` a bias `[N]` or one number
            for each result, `features` the number N. It returns ``x @ weight + added``, `[..., N]`, float32.
        missing: The reason; empty if there is an operator.
    """

    operator: Any = None
    missing: str = ""


@cache
def kernel() -> Kernel:
    """Compile the operator with Inductor's compiler, or find it in Inductor's cache on disk."""
    try:
        importlib.import_module("torch._inductor.codecache").CppCodeCache.load(_SOURCE.read_text())
        operator = torch.ops.bac.packed_product.default
        torch.library.register_fake("bac::packed_product", _shape)
    except Exception as error:  # a compiler that is missing or too old raises its own errors
        return Kernel(missing=str(error).strip().partition("\n")[0] or type(error).__name__)
    return Kernel(operator)


def missing() -> str:
    """Why the operator is missing although a plan could use it; empty if it is there, or no plan has asked for it."""
    return kernel().missing if kernel.cache_info().currsize else ""


def pack(weight: Tensor) -> Tensor:
    """Lay a weight `[K, N]` out in panels of columns, `[ceil(N / 16), K, 16]`; the last one is filled up with zeros."""
    depth, features = weight.shape
    panels = -(-features // _COLUMNS)
    padded = weight.new_zeros(depth, panels * _COLUMNS)
    padded[:, :features] = weight.detach()
    return padded.view(depth, panels, _COLUMNS).transpose(0, 1).contiguous()


def _shape(x: Tensor, packed: Tensor, added: Tensor, features: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], features))
