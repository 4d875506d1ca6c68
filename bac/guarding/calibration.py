"""Measures the error of every reused block at every step, in a cached policy's own runs."""

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
from bac.caching.block import Block, BlockStep
from bac.caching.interceptors.patch import Interceptor, put_on, require_untouched, take_off_all
from bac.caching.interceptors.run import DenoisingRun, Orders
from bac.caching.schedule import Schedule
from bac.checks import check_fits
from bac.denoising import Denoising
from bac.errors import CalibrationError, ScheduleError
from bac.fingerprint import Fingerprint
from bac.guarding.duty import fingerprint_under, watched_schedule
from bac.guarding.guard import Guard
from bac.guarding.probe import Errors, Probe
from bac.install import install

_MOST_DIMENSIONS = 1024  # of an action; a larger output is a picture


@dataclass(frozen=True, eq=False)
class Measured:
    """Errors of a cached policy.

    Attributes:
        errors: Relative L1 errors of every watched block at its reused steps, `[n]` each.
        action_range: Smallest and largest output of the sampler along its last dimension; None if it returns no
            tensor of actions.
        estimator: Name of the estimator.
        fingerprint: Identity of the policy.
    """

    errors: Mapping[BlockStep, Errors]
    action_range: tuple[tuple[float, ...], tuple[float, ...]] | None
    estimator: str
    fingerprint: Fingerprint

    def guard(self, schedule: Schedule, *, quantile: float = 0.99, **options: Any) -> Guard:
        """Make a guard from these errors; see `bac.Guard.of_errors`."""
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
    """Intercepts a sampler: it probes runs at every watched block and step, and measures the range of the actions.

    Args:
        cells: Blocks at steps to watch.
        run: The sampler's run.
        host: The policy.
        denoising: What the policy follows.
        every: One run in this many is probed.

    Attributes:
        num_chunks: Calls of the sampler.
        num_runs: Probed runs, one for each observation of a call.
    """

    def __init__(
        self, cells: Sequence[BlockStep], run: DenoisingRun, host: Host, denoising: Denoising, every: int = 1
    ) -> None:
        self.run = run
        self.host = host
        self.denoising = denoising
        self.every = every
        self.num_chunks = self.num_runs = 0
        self._found: dict[BlockStep, list[Errors]] = {cell: [] for cell in cells}
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        # The keys of `_found` are the watched cells.
        probe = None if self.num_chunks % self.every else Probe(self._found, self.host.batch_dim)
        self.run.orders_ahead = Orders(probe=probe)
        output = self.original(*inputs, **options)
        self.num_chunks += 1
        if probe is not None and (found := probe.errors()):
            for cell, errors in found.items():
                self._found[cell].append(errors)
            self.num_runs += len(errors)  # every cell has one error per sample, so the last one counts them
        if isinstance(output, Tensor) and output.dim() > 1 and output.shape[-1] <= _MOST_DIMENSIONS:
            low, high = (extreme(output.detach().float().flatten(0, -2), dim=0) for extreme in (torch.amin, torch.amax))
            self._low = low if self._low is None else torch.minimum(self._low, low)
            self._high = high if self._high is None else torch.maximum(self._high, high)
        return output

    def measured(self) -> Measured:
        """The errors and the action range so far."""
        errors = {cell: np.concatenate(rows) if rows else np.zeros(0) for cell, rows in self._found.items()}
        fingerprint = fingerprint_under(self.denoising, self.host)
        return Measured(errors, self._action_range(), self.denoising.estimator_name, fingerprint)

    def _action_range(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        if self._low is None or self._high is None:
            return None
        return tuple(self._low.tolist()), tuple(self._high.tolist())


@contextmanager
def surveying(
    policy: object,
    what: Denoising | Schedule,
    *,
    seed: int = 0,
    blocks: Sequence[Block] | None = None,
    num_watched: int | None = None,
    every: int = 1,
) -> Iterator[Survey]:
    """Measure a policy under a schedule while something else runs it: an environment, a benchmark.

    A probed run takes as long as a dense one, so no robot should move meanwhile. The policy is left unwrapped.

    Args:
        policy: As for `calibrate`, like the other arguments.
        seed: Seeds the choice of watched blocks and steps.
        every: One run in this many is probed, because neighbours in an episode are alike.

    Raises:
        CalibrationError: The policy is wrapped.
        ScheduleError, MismatchError: As from `bac.wrap`; or nothing is reused, or the estimator crosses action chunks.
    """
    require_untouched(policy)
    denoising, host = Denoising.of(what), find_host(policy, blocks)
    cells = _watched(watched_schedule(denoising, host), num_watched, seed)
    check_fits(denoising, host, strict=True)
    try:
        run = install(host, denoising, replay=None)
        survey = Survey(cells, run, host, denoising, every)
        put_on(host.sampler_owner, host.sampler_attribute, survey)
        yield survey
    finally:
        take_off_all(policy)


def measure(
    policy: object,
    what: Denoising | Schedule,
    batches: Iterable[Any],
    *,
    num_draws: int = 1,
    seed: int = 0,
    blocks: Sequence[Block] | None = None,
    num_watched: int | None = None,
    progress: bool = True,
) -> Measured:
    """Run the cached policy on observations and compute every reused block as well. The policy is left unwrapped.

    Args:
        policy: As for `calibrate`, like the other arguments.

    Raises:
        CalibrationError: The policy is wrapped, or `batches` is one batch.
        ScheduleError, MismatchError: As from `surveying`.
    """
    if isinstance(batches, Mapping):
        raise CalibrationError("batches: must be an iterable of observation batches, got one batch; pass [batch]")
    with surveying(policy, what, seed=seed, blocks=blocks, num_watched=num_watched) as survey:
        # Find the host again: its `predict` may be the very method that the survey now shadows.
        _predict_all(find_host(policy, blocks), batches, num_draws, seed, progress)
    return survey.measured()


def calibrate(
    policy: object,
    what: Denoising | Schedule,
    batches: Iterable[Any],
    *,
    quantile: float = 0.99,
    num_draws: int = 1,
    seed: int = 0,
    blocks: Sequence[Block] | None = None,
    num_watched: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Guard:
    """Run the cached policy on observations, compute every reused block as well, and make a guard from the errors.

    It takes as long as dense runs. The policy is left unwrapped.

    Args:
        policy: An untouched policy, as for `bac.calibrate`.
        what: The schedule, or way to denoise, that the guard will watch.
        batches: Observation batches of many episodes, but not those the schedule was made from. Each of the B
            observations is a run. The guard's `allowed` assumes independent runs; 100 or more make it a few per cent.
        quantile: A block's limit at a step is this quantile of its errors, in (0, 1].
        num_draws: Noise draws per batch.
        seed: Seeds the noise of each run.
        blocks: As they will be given to `bac.wrap`.
        num_watched: Number of block-step pairs to watch, chosen at random from the reused ones; None watches all. A
            few hundred take a third of the time.
        progress: Show a progress bar.
        options: Attributes of the guard, `probe_every` to `seed` (the last as ``guard_seed``).

    Raises:
        CalibrationError: The policy is wrapped, there are fewer than two runs, or an error is NaN.
        ScheduleError, MismatchError: As from `bac.wrap`.
    """
    measured = measure(
        policy, what, batches, num_draws=num_draws, seed=seed, blocks=blocks, num_watched=num_watched,
        progress=progress,
    )  # fmt: skip
    if "guard_seed" in options:
        options["seed"] = options.pop("guard_seed")
    return measured.guard(watched_schedule(Denoising.of(what), find_host(policy, blocks)), quantile=quantile, **options)


def _watched(schedule: Schedule, num_watched: int | None, seed: int) -> list[BlockStep]:
    """All reused blocks at their steps, or `num_watched` of them, chosen at random."""
    steps = range(schedule.num_steps)
    cells = [
        BlockStep(name, s) for name, updates in schedule.update_steps.items() for s in steps if s not in set(updates)
    ]
    if not cells:
        raise ScheduleError("schedule: reuses nothing, so there is nothing to watch; wrap without a guard")
    if num_watched is not None and num_watched < len(cells):
        cells = random.Random(seed).sample(cells, num_watched)
    return cells


def _predict_all(host: Host, batches: Iterable[Any], num_draws: int, seed: int, progress: bool) -> None:
    from tqdm import tqdm

    total = len(batches) * num_draws if isinstance(batches, Sized) else None
    with tqdm(total=total, desc="guard", unit="run", disable=not progress) as bar:
        for index, batch in enumerate(batches):
            for draw in range(num_draws):
                host.predict_seeded(batch, seed + index * num_draws + draw)
                bar.update()
