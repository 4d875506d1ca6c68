"""The largest errors that a plan may make against the interpreted run, relative to the largest action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bac.plan.program import Program

TOLERANCE = 1e-5  # of another order of roundings in float32
_ROUNDINGS = 4  # of a 16-bit dtype; the re-associated run of pi0 in bfloat16 was a quarter of one away
_PRODUCTS = {"linear", "addmm", "baddbmm", "bmm", "matmul", "mm"}


def bounds(program: Program, outputs: Sequence[Tensor], *, on_gpu: bool) -> tuple[float, float]:
    """Largest errors of an exact and of a re-associated plan. GPU kernels need not give equal bits.

    A model that multiplies in bfloat16 may return its actions in float32. Another order of roundings then makes the
    error of its products, but the same kernels in the same order do not.

    Args:
        program: The recorded run.
        outputs: What it computed.
        on_gpu: Whether part of it runs on a GPU.
    """
    exact = max(map(tolerance_of, outputs))
    fast = max((_tolerance(dtype) for dtype in _computed_in(program)), default=0.0)
    return (exact if on_gpu else 0.0), max(exact, fast)


def tolerance_of(output: Tensor) -> float:
    """Largest error that another order of roundings may make in an output of this dtype."""
    return _tolerance(output.dtype)


def _tolerance(dtype: torch.dtype) -> float:
    """Some roundings of a 16-bit dtype; `TOLERANCE` of others."""
    coarse = dtype.is_floating_point and dtype.itemsize < torch.float32.itemsize
    return max(TOLERANCE, _ROUNDINGS * torch.finfo(dtype).eps if coarse else 0.0)


def _computed_in(program: Program) -> set[torch.dtype]:
    """Dtypes of the matrix products that a run computes."""
    variable = program.variable
    products = (i for i in program.instructions if i.name in _PRODUCTS and not variable.isdisjoint(i.outputs))
    return {program.meta[i.outputs[0]].dtype for i in products}
