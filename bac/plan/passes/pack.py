"""Packs the constant weights of matrix products of few rows, for compiled plans on a CPU.

A product becomes `bac.plan.packed`'s where a trial finds that faster. On an AVX2 processor with ten rows and 256 x 1024
weights it took half the time of ``addmm``; with one row, 32 rows, or a weight of a few kilobytes, as much. The trial
runs once for each shape, on weights outside of the nearest caches, as in a chunk.

Re-associates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from bac.plan.packed import MOST_ROWS, kernels, pack
from bac.plan.passes.emit import Emitter
from bac.plan.passes.layouts import in_panels
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten

_MIN_ROWS = 2  # one row is a matrix-vector product
_MIN_WEIGHTS = 4096  # in fewer, the product costs no more than its call
_COLD = 1 << 22  # weights of a trial together: 16 MB, more than the caches of one core
_ROUNDS = 7
_GAIN = 0.9  # of the time of BLAS: what is as fast stays

# Places of input, weight and addend among the arguments.
_PRODUCTS = {
    aten.linear.default: (0, 1, 2),
    aten.addmm.default: (1, 2, 0),
    aten.mm.default: (0, 1, 2),
    aten.matmul.default: (0, 1, 2),
}


def pack_products(program: Program) -> Program:
    """Rewrite the products for which that pays. Without a C++ compiler the program stays as it is."""
    emitter = Emitter(program)
    packed: dict[tuple[int, bool], Ref] = {}
    zeros: dict[int, Ref] = {}
    for instruction in program.instructions:
        product = _product(program, instruction)
        matrix = None if product is None else product.matrix(program)
        if product is None or matrix is None or not is_packed_faster(product.rows, *matrix.shape):
            emitter.kept.append(instruction)
            continue
        features = matrix.shape[1]
        key = product.weight, product.is_transposed
        if key not in packed:
            packed[key] = emitter.constant(in_panels(matrix))
        if product.added is None and features not in zeros:
            zeros[features] = emitter.constant(matrix.new_zeros(features))
        added = zeros[features] if product.added is None else Ref(product.added)
        emitter.emit(kernels().product, Ref(product.x), packed[key], added, features, output=instruction.outputs[0])
    return emitter.finish()


@dataclass(frozen=True)
class _Product:
    """``x @ weight + added`` of few rows; `added` is a bias, one number for each result, or None."""

    x: int
    weight: int
    added: int | None
    rows: int
    is_transposed: bool

    def matrix(self, program: Program) -> Tensor:
        """The weight, `[K, N]`."""
        weight = program.constants[self.weight]
        return weight.t() if self.is_transposed else weight


def _product(program: Program, instruction: Instruction) -> _Product | None:
    if instruction.operator not in _PRODUCTS or instruction.options:
        return None
    args = [argument.value if isinstance(argument, Ref) else None for argument in instruction.args]
    places = _PRODUCTS[instruction.operator]
    x, weight, added = (args[place] if place < len(args) else None for place in places)
    if x is None or weight is None or weight not in program.constants or program.constants[weight].dim() != 2:
        return None
    result = program.meta[instruction.outputs[0]]
    values = [program.meta.get(value) for value in instruction.inputs]
    if any(meta is None or meta.dtype != torch.float32 or meta.device.type != "cpu" for meta in values):
        return None
    rows, features = prod(result.shape[:-1]), result.shape[-1]
    if added is not None and program.meta[added].shape not in ((features,), result.shape):
        return None
    if not _MIN_ROWS <= rows <= MOST_ROWS:
        return None
    return _Product(x, weight, added, rows, instruction.operator == aten.linear.default)


def is_packed_faster(rows: int, depth: int, features: int) -> bool:
    """Whether the packed product is there and faster than PyTorch's for ``[rows, depth] @ [depth, features]``."""
    if depth * features < _MIN_WEIGHTS or kernels().product is None:
        return False
    return _is_faster(rows, depth, features, torch.get_num_threads())


@cache
def _is_faster(rows: int, depth: int, features: int, threads: int) -> bool:
    """Time both products in turns, the packed one and ``addmm`` with the weight in its better layout."""
    operator = kernels().product
    x, bias = _ones(rows, depth), _ones(features)
    copies = min(max(1, _COLD // (depth * features)), 16)
    plain = [_ones(depth, features) for _ in range(copies)]
    packed = [pack(weight) for weight in plain]
    calls: tuple[Callable[[int], Tensor], ...] = (
        lambda place: torch.addmm(bias, x, plain[place]),
        lambda place: operator(x, packed[place], bias, features),
    )
    blas, ours = shortest(calls, copies)
    return ours < _GAIN * blas


def shortest(calls: Sequence[Callable[[int], Any]], copies: int) -> list[float]:
    """The shortest time of each call over all copies of its weights, in turns [s]."""
    rounds = [[_seconds(call, copies) for call in calls] for _ in range(_ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float32, device="cpu")


def _seconds(call: Callable[[int], Any], copies: int) -> float:
    before = time.perf_counter()
    for place in range(copies):
        call(place)
    return time.perf_counter() - before
