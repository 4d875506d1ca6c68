"""Compares reused with computed outputs within one denoising run."""

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
    """Collects relative L1 errors of some blocks at some steps of one run.

    Args:
        cells: The blocks and steps to compare, all of them reused by the schedule.
        batch_dim: Dimension of a block's output that counts samples.
    """

    def __init__(self, cells: Collection[BlockStep], batch_dim: int = 0) -> None:
        self.cells = frozenset(cells)
        self.batch_dim = batch_dim
        self._found: dict[BlockStep, list[Tensor]] = {}

    def compare(self, block: str, step: int, returned: Any, computed: Any) -> None:
        """Store the relative L1 error of the returned output against the computed one."""
        value, truth = _feature(block, returned), _feature(block, computed)
        rows = [_by_sample(part, self.batch_dim) for part in (value.detach() - truth, truth)]
        moved, size = (part.abs().sum(dim=1, dtype=torch.float32) for part in rows)
        error = torch.where(moved == 0, moved, moved / size)
        self._found.setdefault(BlockStep(block, step), []).append(error)

    def errors(self) -> dict[BlockStep, Errors]:
        """Relative errors by block and step, `[B]` each, in order of evaluation; the largest over guidance contexts.

        An error is infinite if the block computed zeros and returned anything else. Waits for the device once.
        """
        if not self._found:
            return {}
        largest = [torch.stack(found).amax(dim=0) for found in self._found.values()]
        sizes = [len(rows) for rows in largest]
        parts = np.split(torch.cat(largest).double().cpu().numpy(), np.cumsum(sizes)[:-1])
        return dict(zip(self._found, parts, strict=True))


def _by_sample(values: Tensor, batch_dim: int) -> Tensor:
    """Flatten to `[B, D]`, samples first."""
    values = values.movedim(batch_dim, 0)
    return values.reshape(len(values), -1)


def _feature(block: str, output: Any) -> Tensor:
    feature = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(feature, Tensor):
        raise RunError(
            f"{block}: returns {type(output).__name__}; a guard compares tensors, or tuples that begin with one"
        )
    return feature
