"""Compares, within one denoising run, what the cache returns with what the block computes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bac.caching.block import BlockStep
from bac.errors import RunError

Errors = npt.NDArray[np.float64]


class Probe:
    """Collects relative L1 errors at some cells of one run.

    Args:
        cells: BlockStep to look; cells at which the schedule reuses.
        batch_dim: Dimension of a block's output that counts samples.
    """

    def __init__(self, cells: Collection[BlockStep], batch_dim: int = 0) -> None:
        self.cells = frozenset(cells)
        self.batch_dim = batch_dim
        self._found: dict[BlockStep, list[Tensor]] = {}

    def compare(self, block: str, step: int, returned: Any, computed: Any) -> None:
        """Note how far what was returned is from what was computed."""
        value, truth = _feature(block, returned), _feature(block, computed)
        rows = [_by_sample(part, self.batch_dim) for part in (value.detach() - truth, truth)]
        moved, size = (part.abs().sum(dim=1, dtype=torch.float32) for part in rows)
        error = torch.where(moved == 0, moved, moved / size)
        self._found.setdefault(BlockStep(block, step), []).append(error)

    def errors(self) -> dict[BlockStep, Errors]:
        """Relative errors by cell, `[B]` each, in the order of evaluation; the largest over the contexts of guidance.

        Infinite where a block computed zeros and something else was returned. Waits for the device, once.
        """
        if not self._found:
            return {}
        largest = [torch.stack(found).amax(dim=0) for found in self._found.values()]
        sizes = [len(rows) for rows in largest]
        parts = np.split(torch.cat(largest).double().cpu().numpy(), np.cumsum(sizes)[:-1])
        return dict(zip(self._found, parts, strict=True))


def _by_sample(values: Tensor, batch_dim: int) -> Tensor:
    """`[B, everything else]`."""
    values = values.movedim(batch_dim, 0)
    return values.reshape(len(values), -1)


def _feature(block: str, output: Any) -> Tensor:
    feature = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(feature, Tensor):
        raise RunError(f"{block}: returns {type(output).__name__}; a guard compares tensors, or tuples that begin so")
    return feature
