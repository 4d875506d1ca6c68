"""What a way costs and what it changes on single observations: latency, evaluations, action error, spread."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import bac
from bac.tuning.bench import typical
from bac.tuning.distance import spread_ratio
from bac.tuning.timing import WARM_UP
from eval.compared.many_tasks import predict
from eval.measure.latency import measure
from eval.setup.batches import Batch, one_of
from eval.setup.cells import Cell, configure, running

EAGER = "eager"
DRAWS = 8  # of noise, for the spread


def errors(policy: Any, cells: Sequence[Cell], batch: Batch) -> dict[str, list[float]]:
    """Action error of every way to the first: root mean square and geometric mean over observations, by name."""
    found: dict[str, list[float]] = {}
    reference = None
    for cell in cells:
        with running(policy, cell):
            chunks = predict(policy, batch).double()
        reference = chunks if reference is None else reference
        each = (chunks - reference).square().flatten(1).mean(1).sqrt()
        found[cell.name] = [float(each.square().mean().sqrt()), typical(each)]
    return found


def spreads(policy: Any, cells: Sequence[Cell], batch: Batch) -> dict[str, float]:
    """How far other noise moves a way's chunks, over how far it moves those of the first way, by name.

    Below 1 a way makes more alike what the policy itself makes in several ways: its modes collapse. NaN where noise
    moves nothing.
    """
    found: dict[str, float] = {}
    own = None
    for cell in cells:
        with running(policy, cell):
            chunks = torch.stack([predict(policy, batch, draw) for draw in range(DRAWS)])
        own = chunks if own is None else own
        found[cell.name] = spread_ratio(chunks, own)
    return found


def latencies(policy: Any, cells: Sequence[Cell], batch: Batch, rounds: int) -> dict[str, dict[str, Any]]:
    """Latency of a whole chunk of every way, vision and language included, at batch 1 on one thread, by name.

    All run replayed, in turns with the first as it is without `bac`, which is `EAGER`.
    """
    calls: dict[str, Callable[[], object]] = {EAGER: _caller(policy, cells[0], None, batch)}
    for cell in cells:
        calls[cell.name] = _caller(policy, cell, cell.denoising or bac.Denoising(), batch)
    return {name: latency.to_dict() for name, latency in measure(calls, rounds=rounds, warmup=WARM_UP).items()}


def evaluations(cell: Cell) -> float:
    """Evaluations of the whole denoiser, NFE: steps, or sweeps where blocks are reused."""
    reused = None if cell.denoising is None else cell.denoising.sweeps
    return float(cell.steps if reused is None else reused)


def rank_correlation(
    rows: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], float | None]
) -> float | None:
    """Spearman's correlation of a number of each row with the success it loses; None where there are no ranks."""
    from scipy.stats import spearmanr

    lost = [-row["all"]["difference"][0] for row in rows]
    numbers = [of(row) for row in rows]
    if None in numbers or len(rows) < 3 or len(set(lost)) == 1 or len(set(numbers)) == 1:
        return None
    return float(spearmanr(numbers, lost).statistic)


def _caller(policy: Any, cell: Cell, denoising: bac.Denoising | None, batch: Batch) -> Callable[[], torch.Tensor]:
    mine = copy.deepcopy(policy)
    configure(mine, cell)
    if denoising is not None:
        bac.wrap(mine, denoising)
    first = one_of(batch)
    return lambda: predict(mine, first)
