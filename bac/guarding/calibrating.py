"""How far a cached policy's reused blocks are off, at every cell, in its own cached runs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
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
from bac.guarding.guard import Guard
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

    def guard(self, schedule: Schedule, *, quantile: float = 0.99, **options: Any) -> Guard:
        """The guard of these errors; see `bac.Guard.of_errors`."""
        return Guard.of_errors(
            schedule,
            self.errors,
            quantile=quantile,
            estimator=self.estimator,
            action_range=self.action_range,
            fingerprint=self.fingerprint,
            **options,
        )


class Survey(Interceptor):
    """Stands in for a sampler: its runs are probed at every watched cell, and what they return is measured.

    Args:
        cells: Watched cells.
        run: The sampler's.
        host: The policy.
        estimator: Name of what stands in.
        every: Of this many runs one is probed.

    Attributes:
        num_chunks: Calls of the sampler.
        num_runs: Probed runs, counted by observation.
    """

    def __init__(self, cells: Sequence[Where], run: DenoisingRun, host: Host, estimator: str, every: int = 1) -> None:
        self.run = run
        self.host = host
        self.estimator = estimator
        self.every = every
        self.num_chunks = self.num_runs = 0
        self._found: dict[Where, list[Errors]] = {cell: [] for cell in cells}
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        probe = None if self.num_chunks % self.every else Probe(self._found, self.host.batch_dim)
        self.run.orders_ahead = Orders(probe=probe)
        output = self.original(*inputs, **options)
        self.num_chunks += 1
        if probe is not None and (found := probe.errors()):
            for cell, errors in found.items():
                self._found[cell].append(errors)
            self.num_runs += len(errors)
        if isinstance(output, Tensor) and output.dim() > 1 and output.shape[-1] <= _MOST_DIMENSIONS:
            low, high = (extreme(output.detach().float().flatten(0, -2), dim=0) for extreme in (torch.amin, torch.amax))
            self._low = low if self._low is None else torch.minimum(self._low, low)
            self._high = high if self._high is None else torch.maximum(self._high, high)
        return output

    def measured(self) -> Measured:
        """What was found."""
        errors = {cell: np.concatenate(rows) if rows else np.zeros(0) for cell, rows in self._found.items()}
        return Measured(errors, self._action_range(), self.estimator, self.host.fingerprint())

    def _action_range(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        if self._low is None or self._high is None:
            return None
        return tuple(self._low.tolist()), tuple(self._high.tolist())


@contextmanager
def surveying(
    policy: object,
    schedule: Schedule,
    *,
    seed: int = 0,
    estimator: Estimator | None = None,
    blocks: Sequence[Block] | None = None,
    num_watched: int | None = None,
    every: int = 1,
) -> Iterator[Survey]:
    """Let a policy follow a schedule, and measure it, while something else runs it: an environment, a benchmark.

    A probed run takes as long as a dense one, so no robot should move meanwhile. The policy is left unwrapped.

    Args:
        policy: As for `bac.Guard.calibrate`; so are the others.
        seed: Of the choice of cells.
        every: Of this many runs one is probed; neighbours in an episode are alike.

    Raises:
        CalibrationError: The policy is wrapped, or its estimator looks back an action chunk.
        ScheduleError, MismatchError: As from `bac.wrap`; or the schedule reuses nothing.
    """
    from bac.plugin import unwrap, wrap  # which knows guards

    if any(True for _ in interceptors(policy)):
        raise CalibrationError("policy: must be untouched to calibrate a guard; call bac.unwrap(policy) first")
    cells = _watched(schedule, num_watched, seed)
    name = schedule.estimator if estimator is None else estimator.name
    wrap(policy, schedule, estimator=estimator, blocks=blocks, executor="interpret")
    try:
        host = find_host(policy, blocks)
        survey = Survey(cells, _run_of(policy), host, name, every)
        put_on(host.sampler_owner, host.sampler_attribute, survey)
        yield survey
    finally:
        unwrap(policy)


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
    if isinstance(batches, Mapping):
        raise CalibrationError("batches: must be an iterable of observation batches, got one batch; pass [batch]")
    with surveying(policy, schedule, seed=seed, estimator=estimator, blocks=blocks, num_watched=num_watched) as survey:
        _predict_all(find_host(policy, blocks), batches, num_draws, seed, progress)  # anew: its way in may be that
    return survey.measured()


def _watched(schedule: Schedule, num_watched: int | None, seed: int) -> list[Where]:
    """Reused cells, or some of them, chosen at random."""
    steps = range(schedule.num_steps)
    cells = [(name, s) for name, updates in schedule.update_steps.items() for s in steps if s not in set(updates)]
    if not cells:
        raise ScheduleError("schedule: reuses nothing, so there is nothing to watch; wrap without a guard")
    if num_watched is not None and num_watched < len(cells):
        cells = random.Random(seed).sample(cells, num_watched)
    return cells


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
