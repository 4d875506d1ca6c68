"""Measures the effect of reuse on the action chunk, when one stretch of a run is not computed.

An edge (i, j) is a run in which every block is reused at the steps between i and j, and computed at all others. Many
edges go through the sampler side by side, as rows of one batch, each with the noise of its untouched row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.block import Block
from bac.caching.estimators import BlockStep, Estimator, Hold
from bac.caching.interceptors.patch import Interceptor, put_on, require_untouched, take_off_all
from bac.errors import CalibrationError, UnsupportedPolicyError

Edge = tuple[int, int]


class PerturbedBlock(Interceptor):
    """Computes a block for all rows; between the ends of an edge, the estimate replaces the output of its rows.

    A forecast also needs an update before the edge. It is taken one edge length before the beginning, as if updates
    were evenly spaced.

    Args:
        name: Name of the block.
        edges: One edge for each group of rows.
        num_rows: Rows of a group.
        batch_dim: Dimension of the output that counts rows.
        estimator: Gives the value at a reuse.
    """

    def __init__(self, name: str, edges: Sequence[Edge], num_rows: int, batch_dim: int, estimator: Estimator) -> None:
        self.name = name
        self.edges = tuple(edges)
        self.num_rows = num_rows
        self.batch_dim = batch_dim
        self.estimator = estimator
        self.step = 0
        self.states: list[Any] = [None] * len(self.edges)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        output = self.original(*inputs, **options)
        feature = output[0] if isinstance(output, tuple) else output
        x = next((value for value in (*inputs, *options.values()) if isinstance(value, Tensor)), None)
        replaced = self._replaced(BlockStep(self.name, self.step), x, feature)
        self.step += 1
        return (replaced, *output[1:]) if isinstance(output, tuple) else replaced

    def _replaced(self, at: BlockStep, x: Tensor | None, feature: Tensor) -> Tensor:
        result = feature
        for place, (start, end) in enumerate(self.edges):
            if at.step in (start, max(2 * start - end, 0)):
                own = self._rows(feature, place).clone()  # the policy may write into its output later
                self.states[place] = self.estimator.store(self.states[place], at, self._rows(x, place), own)
            elif start < at.step < end:
                estimate = self.estimator.estimate(self.states[place], at, self._rows(x, place))
                if estimate is not None:
                    result = feature.clone() if result is feature else result
                    result.narrow(self.batch_dim, place * self.num_rows, self.num_rows).copy_(estimate)
        return result

    def _rows(self, values: Any, place: int) -> Any:
        return None if values is None else values.narrow(self.batch_dim, place * self.num_rows, self.num_rows)


def edge_costs(
    policy: nn.Module,
    batch: Mapping[str, Tensor],
    edges: Sequence[Edge],
    *,
    estimator: Estimator | None = None,
    num_rows: int = 64,
    seed: int = 0,
    blocks: Sequence[Block] | None = None,
) -> npt.NDArray[np.float64]:
    """Mean squared change of the action chunk for every edge.

    It takes one denoising run of the untouched policy for every `num_rows` rows, and one more.

    Args:
        policy: An untouched policy, as for `bac.calibrate`.
        batch: Observations, every tensor `[B, ...]`.
        edges: Pairs (i, j) with 0 <= i < j <= K.
        estimator: Gives the value at a reuse; plain reuse by default. Not a fitted one.
        num_rows: Rows in a batch for the policy, at least B.
        seed: Seeds the noise.
        blocks: The blocks, where `bac` does not find them itself.

    Raises:
        UnsupportedPolicyError: The policy evaluates its blocks in several contexts, or outside the denoising loop too.
        CalibrationError: The policy is wrapped, or edges are not pairs of increasing steps.
    """
    host = _untouched(policy, blocks)
    if wrong := [edge for edge in edges if not 0 <= edge[0] < edge[1]]:
        raise CalibrationError(f"edges: must be pairs of increasing steps, got {wrong[0]}")
    num_samples = len(next(iter(batch.values())))
    num_groups = max(num_rows // num_samples, 1)
    tiled = {key: torch.cat([values] * num_groups) for key, values in batch.items()}
    dense = host.predict_seeded(tiled, seed).double()  # same seed and shape: every row shares its twin's noise
    costs = []
    for first in range(0, len(edges), num_groups):
        some = edges[first : first + num_groups]
        with _perturbed(host, some, num_samples, estimator or Hold()):
            moved = (host.predict_seeded(tiled, seed).double() - dense).square()
        costs += moved.view(num_groups, -1).mean(dim=1)[: len(some)].tolist()
    return np.array(costs)


def _untouched(policy: nn.Module, blocks: Sequence[Block] | None) -> Host:
    """The host of a policy, checked to be fit for perturbing rows of its batches."""
    require_untouched(policy)
    host = find_host(policy, blocks)
    if host.num_contexts > 1 or host.evaluation is not None or not isinstance(policy, nn.Module):
        raise UnsupportedPolicyError(
            f"{type(policy).__name__}: its blocks may be evaluated in several contexts or outside the denoising loop; "
            "choose steps by similarity instead: bac.caching.schedulers.unified"
        )
    return host


@contextmanager
def _perturbed(host: Host, edges: Sequence[Edge], num_rows: int, estimator: Estimator) -> Iterator[None]:
    """Within the context, reuse every block between the ends of each edge, in the edge's own rows."""
    try:
        for block in host.blocks:
            perturbed = PerturbedBlock(block.name, edges, num_rows, host.batch_dim, estimator)
            put_on(block.require_owner(), block.attribute, perturbed)
        yield
    finally:
        take_off_all(host.policy)
