"""Operators of few rows in C++, compiled when they are first needed: products, and whole sublayers.

A chunk has ten or twenty tokens, so the weight is most of what a product reads. When a plan is built, it is laid out in
the order in which the operator reads it. A sublayer of such rows is small, so one operator does all of it: the norm,
its products, what is between them, and the addition to the stream. `bac.plan.packed.plain` says what each computes.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

MOST_ROWS = 32
_COLUMNS = 16  # of a panel, as in rows.h
_ONE_AT_A_TIME = threading.Lock()  # a second registration of the operators fails

_PATIENCE = 2  # seconds before a word
_TOLD = "bac: Inductor tries this processor's instructions and compiles operators, about a minute, once for its cache"

# Inductor forbids multiply-adds, so that its kernels round as eager ones do; here they save up to a third of the time.
_FLAGS = ("-ffp-contract=fast",)

# Files of one translation unit, in this order. Their own includes are for readers and editors.
SOURCES = ("rows.h", "sublayer.h", "product.cpp", "feed_forward.cpp", "attention.cpp", "add.cpp")


@dataclass(frozen=True)
class Kernels:
    """The operators, or why there are none. All take and return float32 on a CPU, and raise if arguments do not fit.

    Attributes:
        product: ``packed_product(x, packed, added, features)``; None if it cannot be compiled here. `x` is
            `[..., K]` with at most `MOST_ROWS` rows, `packed` the result of `pack`, `added` a bias `[N]` or one number
            for each result, `features` the number N. It returns ``x @ weight + added``, `[..., N]`.
        norm_product: As `bac.plan.packed.plain.norm_product`, with a packed weight.
        feed_forward: As `bac.plan.packed.plain.feed_forward`, with packed weights.
        self_attention: As `bac.plan.packed.plain.self_attention`, with packed weights.
        cross_attention: As `bac.plan.packed.plain.cross_attention`.
        add_four: ``a + b + c + d``; each but the first as many numbers as `a`, or one.
        missing: The reason; empty if there are operators.
    """

    product: Any = None
    norm_product: Any = None
    feed_forward: Any = None
    self_attention: Any = None
    cross_attention: Any = None
    add_four: Any = None
    missing: str = ""


def kernels() -> Kernels:
    """Compile the operators with Inductor's compiler, or find them in Inductor's cache on disk."""
    with _ONE_AT_A_TIME:
        return _compiled()


@cache
def _compiled() -> Kernels:
    try:
        cache = importlib.import_module("torch._inductor.codecache").CppCodeCache
        with _told_if_slow():
            cache.load(source(), extra_flags=_FLAGS)
        shapes: dict[str, Callable[..., Any]] = {
            "packed_product": lambda x, packed, added, features: x.new_empty((*x.shape[:-1], features)),
            "packed_norm_product": lambda x, *rest: x.new_empty((*x.shape[:-1], rest[-1].numel())),
            "packed_feed_forward": _twice,
            "packed_self_attention": _twice,
            "absorbed_attention": _twice,
            "add_four": lambda a, *_: a.new_empty(a.shape),
        }
        for name, shape in shapes.items():
            torch.library.register_fake(f"bac::{name}", shape)
        return Kernels(*(getattr(torch.ops.bac, name).default for name in shapes))
    except Exception as error:  # a compiler that is missing or too old raises its own errors
        return Kernels(missing=_reason(error))


@contextmanager
def _told_if_slow() -> Iterator[None]:
    notice = threading.Timer(_PATIENCE, tqdm.write, [_TOLD], {"file": sys.stderr})
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def _reason(error: Exception) -> str:
    """What an error says first, and the first error of a compiler that it quotes."""
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    quoted = next((line.partition("error: ")[2] for line in rest if "error: " in line), "")
    return f"{first}: {quoted}" if quoted else first


def source() -> str:
    """The C++ of all operators as one text."""
    texts = (Path(__file__).with_name(name).read_text() for name in SOURCES)
    lines = (line for text in texts for line in text.splitlines())
    return "\n".join(line for line in lines if not line.startswith(('#include "', "#pragma once"))) + "\n"


def missing() -> str:
    """Why the operators are missing although a plan could use them; empty if not, or if no plan has asked."""
    return _compiled().missing if _compiled.cache_info().currsize else ""


def pack(weight: Tensor) -> Tensor:
    """Lay a weight `[K, N]` out in panels of columns, `[ceil(N / 16), K, 16]`; the last one is filled up with zeros."""
    depth, features = weight.shape
    panels = -(-features // _COLUMNS)
    padded = weight.new_zeros(depth, panels * _COLUMNS)
    padded[:, :features] = weight.detach()
    return padded.view(depth, panels, _COLUMNS).transpose(0, 1).contiguous()


def _twice(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(
        x, memory_format=torch.contiguous_format
    )
