"""How far a cached policy's reused blocks are off, at every cell, in its own cached runs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.block import Block
from bac.cache import DenoisingRun, Orders, RunScope
from bac.errors import CalibrationError, ScheduleError
from bac.estimated import ContinuedRun
from bac.estimators import Estimator
from bac.fingerprint import Fingerprint
from bac.guarding.probe import Errors, Probe, Where
from bac.patch import Interceptor, interceptors, put_on, stacked
from bac.schedule import Schedule

_MOST_DIMENSIONS = 1024  # of an action; what has more is a picture


@dataclass(frozen=True, eq=False)
class Measured:
    """Errors of a cached policy.

    Attributes:
        errors: Relative L1 error of every reused cell, `[n]` each.
        action_range: Smallest and largest of what the sampler returned, by its last dimension; None if that is no
            tensor of actions.
        estimator: Name of what stood in.
        fingerprint: The policy.
    """

    errors: Mapping[Where, Errors]
    action_range: tuple[tuple[float, ...], tuple[float, ...]] | None
    estimator: str
    fingerprint: Fingerprint


class Survey(Interceptor):
    """Stands in for a sampler: each of its runs is probed at every reused cell, and what it returns is measured.

    Args:
        cells: Every reused cell.
        run: The sampler's.
        batch_dim: Dimension of a block's output that counts samples.
    """

    def __init__(self, cells: Sequence[Where], run: DenoisingRun, batch_dim: int) -> None:
        self.run = run
        self.batch_dim = batch_dim
        self._found: dict[Where, list[Errors]] = {cell: [] for cell in cells}
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        probe = Probe(self._found, self.batch_dim)
        self.run.orders_ahead = Orders(probe=probe)
        output = self.original(*inputs, **options)
        for cell, errors in probe.errors().items():
            self._found[cell].append(errors)
        if isinstance(output, Tensor) and output.dim() > 1 and output.shape[-1] <= _MOST_DIMENSIONS:
            low, high = (extreme(output.detach().float().flatten(0, -2), dim=0) for extreme in (torch.amin, torch.amax))
            self._low = low if self._low is None else torch.minimum(self._low, low)
            self._high = high if self._high is None else torch.maximum(self._high, high)
        return output

    def errors(self) -> dict[Where, Errors]:
        """By cell, `[n]` each."""
        return {cell: np.concatenate(rows) if rows else np.zeros(0) for cell, rows in self._found.items()}

    def action_range(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Smallest and largest by action dimension."""
        if self._low is None or self._high is None:
            return None
        return tuple(self._low.tolist()), tuple(self._high.tolist())


def measure(
    policy: object,
    schedule: Schedule,
    batches: Iterable[Any],
    *,
    num_draws: int = 1,
    seed: int = 0,
    estimator: Estimator | None = None,
    blocks: Sequence[Block] | None = None,
    num_watched: int | None = None,
    progress: bool = True,
) -> Measured:
    """Run the cached policy on observations and compute every reused block as well. The policy is left unwrapped.

    Args:
        policy: As for `bac.Guard.calibrate`; so are the others.

    Raises:
        CalibrationError: The policy is wrapped, or `batches` is one batch.
        ScheduleError, MismatchError: As from `bac.wrap`; or the schedule reuses nothing.
    """
    from bac.plugin import unwrap, wrap  # which knows guards

    if any(True for _ in interceptors(policy)):
        raise CalibrationError("policy: must be untouched to calibrate a guard; call bac.unwrap(policy) first")
    if isinstance(batches, Mapping):
        raise CalibrationError("batches: must be an iterable of observation batches, got one batch; pass [batch]")
    steps = range(schedule.num_steps)
    cells = [(name, s) for name, updates in schedule.update_steps.items() for s in steps if s not in set(updates)]
    if not cells:
        raise ScheduleError("schedule: reuses nothing, so there is nothing to watch; wrap without a guard")
    if num_watched is not None and num_watched < len(cells):
        cells = random.Random(seed).sample(cells, num_watched)
    wrap(policy, schedule, estimator=estimator, blocks=blocks, executor="interpret")
    try:
        host = find_host(policy, blocks)
        survey = Survey(cells, _run_of(policy), host.batch_dim)
        put_on(host.sampler_owner, host.sampler_attribute, survey)
        _predict_all(find_host(policy, blocks), batches, num_draws, seed, progress)  # anew: its way in may be that
    finally:
        unwrap(policy)
    name = schedule.estimator if estimator is None else estimator.name
    return Measured(survey.errors(), survey.action_range(), name, find_host(policy, blocks).fingerprint())


def _predict_all(host: Host, batches: Iterable[Any], num_draws: int, seed: int, progress: bool) -> None:
    from tqdm import tqdm

    devices = {p.device for p in host.denoiser.parameters() if p.device.type == "cuda"}
    total = len(batches) * num_draws if isinstance(batches, Sized) else None
    with (
        tqdm(total=total, desc="guard", unit="run", disable=not progress) as bar,
        torch.random.fork_rng(devices=list(devices)),
        torch.no_grad(),
    ):
        for index, batch in enumerate(batches):
            for draw in range(num_draws):
                torch.manual_seed(seed + index * num_draws + draw)
                host.reset()
                host.predict(dict(batch) if isinstance(batch, Mapping) else batch)
                bar.update()
        host.reset()


def _run_of(policy: object) -> DenoisingRun:
    run = next(scope.run for scope in stacked(policy) if isinstance(scope, RunScope))
    if isinstance(run, ContinuedRun):
        raise CalibrationError(
            "estimator: looks back an action chunk, so a chunk's error depends on the one before; "
            "a guard watches only what begins anew with every chunk"
        )
    return run
