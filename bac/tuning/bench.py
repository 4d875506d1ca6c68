"""Runs ways to denoise on one policy: measures how far their actions are from the policy's own, and their latency.

The reference is the policy as it is configured. If its solver draws noise during the run, the actions given the
observation are a distribution, and ways to denoise are compared by the distance between distributions
(`bac.tuning.distance`). A deterministic path through such a policy can lead to other actions, however fine its steps.
If the policy draws nothing but its initial noise, chunks from the same noise are compared. Of a flow-matching policy,
the reference can also be a fine run of its flow (`bac.tuning.reference`), which the policy's own steps approximate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from math import isfinite, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.adapters import find_host
from bac.caching.interceptors.patch import require_untouched
from bac.denoising import Denoising
from bac.measured import Measured
from bac.plan.replay import Replay
from bac.plugin import unwrap, wrap
from bac.recording import record_features
from bac.solvers import (
    SOLVERS,
    Ancestral,
    Fitter,
    Multistep,
    Regression,
    injects_noise,
    recorded,
    recording,
    solvers_of,
)
from bac.tuning.batches import Batch, merged, num_rows, rows_of, tiled
from bac.tuning.distance import Distance, bootstrap, distance, energy_distances
from bac.tuning.reference import ReferenceName, check_reference, fine_run
from bac.tuning.timing import Call, Sample, in_turns

TINY = 1e-12  # smallest error, so that zero has a logarithm
FITTING_DRAWS, JUDGING_DRAWS = 4, 8  # chunks for each observation
APART = 100_003  # between the seeds of the reference's chunks and of the others


@dataclass(frozen=True)
class Quantiles:
    """Latency of one action chunk, for one observation.

    Attributes:
        p50_s: Median [s].
        p95_s: 95th percentile [s].
    """

    p50_s: float
    p95_s: float


def quantiles(samples: Sequence[Sample]) -> Quantiles:
    """Latency of a chunk from timed calls."""
    seconds = [sample.wall_s for sample in samples]
    return Quantiles(*(float(np.percentile(seconds, q)) for q in (50, 95)))


@contextmanager
def running(policy: Any, denoising: Denoising, *, replay: bool | Replay = False) -> Iterator[Any]:
    """Within the context, a policy follows a way to denoise. At the end it is unwrapped."""
    wrap(policy, denoising, replay=replay)
    try:
        yield policy
    finally:
        unwrap(policy)


@contextmanager
def calling(policy: Any, denoising: Denoising | None, batch: Batch, replay: bool | Replay) -> Iterator[Call]:
    """Within the context, yield a call that makes one action chunk. None leaves the policy untouched."""
    with nullcontext() if denoising is None else running(policy, denoising, replay=replay):
        predict = find_host(policy).predict  # outside the call, so that no timing includes the search
        yield lambda: predict(dict(batch))


class Bench:
    """Runs ways to denoise on one policy and leaves it as it was.

    Args:
        policy: An untouched policy, in eval mode; as it is configured, it is the reference.
        batches: Observation batches by purpose, ``fit`` and ``held out``.
        replay: Replay during the timing, as for `bac.wrap`.
        reference: ``own``, the policy as it is configured, or ``flow``, a fine run of a flow-matching policy's flow.
        seed: Seeds the noise.

    Attributes:
        reference: What errors are measured to; `reference_kind` is its name.
        other: The other reference of a flow-matching policy; None for all others.

    Raises:
        CalibrationError: The policy is wrapped.
        ScheduleError: The policy has no such reference.
    """

    def __init__(
        self,
        policy: Any,
        batches: Mapping[str, Sequence[Batch]],
        *,
        replay: bool | Replay = True,
        reference: ReferenceName = "own",
        seed: int = 0,
    ) -> None:
        self.policy, self.batches, self.replay, self.seed = policy, batches, replay, seed
        require_untouched(policy)
        self.host = find_host(policy)
        self.names = tuple(block.name for block in self.host.blocks)
        self.num_steps = self.host.num_steps or _counted(policy, batches["fit"][0])
        self.solvers = solvers_of(self.host)
        self.takes_fewer_steps = self.host.takes_fewer_steps
        self.grid = tuple(int(t) for t in self.host.timesteps) if self.solvers else ()
        self.dense = Denoising(num_steps=self.num_steps)
        check_reference(self.host, reference)
        self.reference_kind, self.reference, self.other = reference, self.dense, fine_run(self.host)
        if reference == "flow" and self.other is not None:
            self.reference, self.other = self.other, self.dense
        self.draws_noise = injects_noise(self.host)
        self._errors: dict[tuple[Denoising, str], Tensor] = {}
        self._other_errors: dict[tuple[Denoising, str], float] = {}
        self._fitted: dict[tuple[int, ...], Multistep] = {}
        self._references: dict[tuple[str, int, int], Tensor] = {}
        self._other_chunks: dict[str, Tensor] = {}

    @property
    def quantity(self) -> str:
        """Name of what `errors` measures: ``energy distance`` if the policy draws noise, else ``action error``."""
        return "energy distance" if self.draws_noise else "action error"

    @property
    def reference_name(self) -> str:
        """What errors are measured to, in words: ``DDPMScheduler, 100 steps``."""
        if self.reference != self.dense:
            return f"a fine run of the flow, {self.reference.num_evaluations} steps"
        return f"{self.host.solver or 'its own solver'}, {self.num_steps} steps"

    @property
    def deterministic(self) -> Denoising:
        """The deterministic path at all of the policy's own timesteps; the policy itself if it draws no noise."""
        return Denoising(SOLVERS[0], self.grid) if self.draws_noise else self.dense

    def error(self, denoising: Denoising, purpose: str = "fit") -> float:
        """Root mean square difference of the action chunks to the reference's, or the mean energy distance."""
        errors = self.errors(denoising, purpose)
        return float(errors.mean() if self.draws_noise else errors.square().mean().sqrt())

    def typical_error(self, denoising: Denoising, purpose: str = "fit") -> float:
        """Geometric mean of the observations' own errors; the mean of their energy distances, which may be negative.

        A few observations at which a run forks (a gripper opens or closes) dominate a mean square, whatever the way to
        denoise. In the geometric mean they count as much as any other. Between distributions, a fork is a difference
        like any other.
        """
        return self.error(denoising, purpose) if self.draws_noise else typical(self.errors(denoising, purpose))

    def errors(self, denoising: Denoising, purpose: str = "fit") -> Tensor:
        """Distance of every observation's action chunks to the reference's, `[N]`; see `quantity`."""
        if (denoising, purpose) not in self._errors:
            if self.draws_noise:
                chunks = self.draws(denoising, purpose, FITTING_DRAWS)
                errors = energy_distances(chunks, self._reference(purpose, FITTING_DRAWS, APART))
            else:
                chunks = self.draws(denoising, purpose)
                errors = _apart(chunks, self._reference(purpose, 1, 0))
                if self.other is not None:
                    other = chunks if denoising == self.other else self._of_other(self.other, purpose)
                    self._other_errors[denoising, purpose] = float(_apart(chunks, other).square().mean().sqrt())
            self._errors[denoising, purpose] = errors
        return self._errors[denoising, purpose]

    def other_error(self, denoising: Denoising, purpose: str = "fit") -> float | None:
        """Root mean square difference to the other reference; None if there is none."""
        self.errors(denoising, purpose)
        return self._other_errors.get((denoising, purpose))

    def own_from_flow(self, *, typically: bool = False) -> float | None:
        """Difference of a flow-matching policy's own steps to a fine run, on the fitting observations; None for others.

        Args:
            typically: Take the geometric mean over observations, not the root mean square.
        """
        if self.other is None:
            return None
        errors = _apart(self._of_other(self.other, "fit"), self._reference("fit", 1, 0))
        return typical(errors) if typically else float(errors.square().mean().sqrt())

    def distance(self, denoising: Denoising, purpose: str = "held out") -> Distance:
        """Distance between the distributions of action chunks, with its interval over observations.

        The policy's own distance to itself, ``distance(bench.dense)``, says how large chance alone makes it.
        """
        reference = self._reference(purpose, JUDGING_DRAWS, APART)  # from other noise than any way's
        return distance(self.draws(denoising, purpose, JUDGING_DRAWS), reference)

    def second_look(self, denoising: Denoising) -> float:
        """Mean energy distance on the fitting observations, from other and more noise than `errors`."""
        reference = self._reference("fit", JUDGING_DRAWS, 3 * APART)
        return float(energy_distances(self.draws(denoising, "fit", JUDGING_DRAWS, 4 * APART), reference).mean())

    def measured(self, denoising: Denoising) -> Measured:
        """Measure a way to denoise on the held-out observations, for its file."""
        count = sum(map(num_rows, self.batches["held out"]))
        if not self.draws_noise:
            errors = self.errors(denoising, "held out")
            low, high = (sqrt(bound) for bound in bootstrap(errors.square()))
            error, floor, shift, spread, draws = self.error(denoising, "held out"), 0.0, None, None, 1
        else:
            found, floor, draws = self.distance(denoising), self.distance(self.dense).high, JUDGING_DRAWS
            error, low, high, shift = found.value, found.low, found.high, found.shift
            spread = found.spread if isfinite(found.spread) else None
        return Measured(self.quantity, error, low, high, floor, shift, spread, count, draws, self.reference_name)

    def _reference(self, purpose: str, count: int, shift: int) -> Tensor:
        """Chunks of the policy itself, or of a fine run of its flow; see `draws`."""
        key = purpose, count, shift
        if key not in self._references:
            self._references[key] = self.draws(self.reference, *key)
        return self._references[key]

    def _of_other(self, other: Denoising, purpose: str) -> Tensor:
        """Chunks of the other reference, on the noise of the reference."""
        if purpose not in self._other_chunks:
            self._other_chunks[purpose] = self.draws(other, purpose)
        return self._other_chunks[purpose]

    def fitted(self, timesteps: tuple[int, ...]) -> Multistep:
        """The multistep solver at these timesteps, fitted to the deterministic path."""
        if timesteps not in self._fitted:
            self._fitted[timesteps] = self._fitter(timesteps)
        return self._fitted[timesteps]

    def ancestral(self, timesteps: tuple[int, ...]) -> Ancestral:
        """The ancestral solver at these timesteps, fitted to runs of the policy itself, which draws noise."""
        return self._regression(timesteps)

    @cached_property
    def _regression(self) -> Regression:
        batch = tiled(merged(self.batches["fit"]), FITTING_DRAWS)
        with recording(self.host) as runs:
            find_host(self.policy).predict_seeded(batch, self.seed + 2 * APART)
        return Regression(self.host.sampler_owner.noise_scheduler, runs.states, runs.outputs)

    @cached_property
    def _fitter(self) -> Fitter:
        batch, dense = merged(self.batches["fit"]), self.deterministic

        def run() -> None:
            # Find the host again here: its `predict` may be the very method that is now shadowed.
            find_host(self.policy).predict_seeded(batch, self.seed)

        with recorded(self.host, dense.solver, dense.timesteps) as states:
            run()
        return Fitter(self.host, run, states)

    def draws(self, denoising: Denoising, purpose: str, count: int = 1, shift: int = 0) -> Tensor:
        """Action chunks of every observation, `[count, N, ...]` float64 on the CPU.

        Args:
            denoising: The way to denoise.
            purpose: Purpose of the observations.
            count: Chunks for each observation.
            shift: Added to the seed. Ways with the same shift start from the same noise.
        """
        found = []
        with running(self.policy, denoising):
            predict = find_host(self.policy).predict_seeded  # again: its `predict` may be the method now shadowed
            for index, batch in enumerate(self.batches[purpose]):
                chunks = predict(tiled(batch, count), self.seed + shift + index)
                found.append(chunks.detach().double().cpu().unflatten(0, (count, num_rows(batch))))
        return torch.cat(found, dim=1)

    def latencies(self, ways: Sequence[Denoising], rounds: int) -> list[Quantiles]:
        """Time ways to denoise in turns, a few chunks at a time, so that other load on the machine affects all alike.

        Args:
            ways: The ways to denoise, timed on one observation.
            rounds: Chunks to time of each.
        """
        batch = rows_of(self.batches["held out"][0], slice(1))
        contexts = {place: partial(calling, self.policy, way, batch, self.replay) for place, way in enumerate(ways)}
        with self.host.own_randomness():
            samples = in_turns(contexts, rounds)
        return [quantiles(samples[place]) for place in contexts]


def _apart(chunks: Tensor, reference: Tensor) -> Tensor:
    """Root mean square difference of one chunk of every observation, `[N]`."""
    return (chunks - reference).square().flatten(2).mean(2).sqrt()[0]


def _counted(policy: Any, batch: Batch) -> int:
    """Count the denoising steps of a policy that does not announce them, in one run."""
    return len(next(iter(record_features(policy, batch).values())))


def typical(errors: Tensor) -> float:
    """Geometric mean of errors; an error of zero counts as `TINY`."""
    return float(errors.clamp_min(TINY).log().mean().exp())
