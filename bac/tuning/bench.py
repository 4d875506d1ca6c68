"""Runs ways to denoise on one policy: measures their action error against a reference, and their latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.adapters import find_host
from bac.caching.interceptors.patch import require_untouched
from bac.denoising import Denoising
from bac.plan.replay import Replay
from bac.plugin import unwrap, wrap
from bac.recording import record_features
from bac.solvers import SOLVERS, Fitter, Multistep, injects_noise, recorded, solvers_of
from bac.tuning.batches import Batch, merged, rows_of
from bac.tuning.reference import fine_run
from bac.tuning.timing import Call, in_turns

TINY = 1e-12  # smallest error, so that zero has a logarithm


@dataclass(frozen=True)
class Quantiles:
    """Latency of one action chunk, for one observation.

    Attributes:
        p50_s: Median [s].
        p95_s: 95th percentile [s].
    """

    p50_s: float
    p95_s: float


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

    The reference is the policy as it is given. If its solver injects noise, the reference of other solvers is
    first-order DPM-Solver++ at all of its timesteps, because only runs that share their draws can be compared. The
    reference of a flow-matching policy is a fine run of the flow (`fine`).

    Args:
        policy: An untouched policy, in eval mode.
        batches: Observation batches by purpose, ``fit`` and ``held out``.
        replay: Replay during the timing, as for `bac.wrap`.
        seed: Seeds the noise.

    Raises:
        CalibrationError: The policy is wrapped.
    """

    def __init__(
        self, policy: Any, batches: Mapping[str, Sequence[Batch]], *, replay: bool | Replay = True, seed: int = 0
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
        self.fine = fine_run(self.host)
        self._injects_noise = injects_noise(self.host)
        self._errors: dict[tuple[Denoising, str], Tensor] = {}
        self._fitted: dict[tuple[int, ...], Multistep] = {}
        self._references: dict[tuple[Denoising, str], list[Tensor]] = {}

    def reference_of(self, denoising: Denoising) -> Denoising:
        """The way to denoise whose actions are the reference for this one."""
        return self.fine or (self.dense if denoising.solver is None else self._dense_run)

    @property
    def _dense_run(self) -> Denoising:
        """The reference of other solvers."""
        return Denoising(SOLVERS[0], self.grid) if self._injects_noise else self.dense

    def error(self, denoising: Denoising, purpose: str = "fit") -> float:
        """Root mean square difference of the action chunk to the reference's on the same noise."""
        return float(self.errors(denoising, purpose).square().mean().sqrt())

    def typical_error(self, denoising: Denoising, purpose: str = "fit") -> float:
        """Geometric mean of the observations' own errors.

        A few observations at which a run forks (a gripper opens or closes) dominate a mean square, whatever the way to
        denoise. In the geometric mean they count as much as any other.
        """
        return typical(self.errors(denoising, purpose))

    def errors(self, denoising: Denoising, purpose: str = "fit") -> Tensor:
        """Root mean square difference of every observation's action chunk to the reference's, `[N]`."""
        if (denoising, purpose) not in self._errors:
            key = self.reference_of(denoising), purpose
            if key not in self._references:
                self._references[key] = self.chunks(*key)
            pairs = zip(self.chunks(denoising, purpose), self._references[key], strict=True)
            squares = [(chunk - reference).square().flatten(1).mean(1) for chunk, reference in pairs]
            self._errors[denoising, purpose] = torch.cat(squares).sqrt()
        return self._errors[denoising, purpose]

    def fitted(self, timesteps: tuple[int, ...]) -> Multistep:
        """The multistep solver at these timesteps, fitted to the reference's runs."""
        if timesteps not in self._fitted:
            self._fitted[timesteps] = self._fitter(timesteps)
        return self._fitted[timesteps]

    @cached_property
    def _fitter(self) -> Fitter:
        batch, dense = merged(self.batches["fit"]), self._dense_run

        def run() -> None:
            # Find the host again here: its `predict` may be the very method that is now shadowed.
            find_host(self.policy).predict_seeded(batch, self.seed)

        with recorded(self.host, dense.solver, dense.timesteps) as states:
            run()
        return Fitter(self.host, run, states)

    def chunks(self, denoising: Denoising, purpose: str) -> list[Tensor]:
        """The action chunk of every batch, float64 on the CPU."""
        with running(self.policy, denoising):
            predict = find_host(self.policy).predict_seeded  # again: its `predict` may be the method now shadowed
            chunks = [predict(batch, self.seed + index) for index, batch in enumerate(self.batches[purpose])]
        return [chunk.detach().double().cpu() for chunk in chunks]

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
        seconds = [[sample.wall_s for sample in samples[place]] for place in contexts]
        return [Quantiles(*(float(np.percentile(values, q)) for q in (50, 95))) for values in seconds]


def _counted(policy: Any, batch: Batch) -> int:
    """Count the denoising steps of a policy that does not announce them, in one run."""
    return len(next(iter(record_features(policy, batch).values())))


def typical(errors: Tensor) -> float:
    """Geometric mean of errors; an error of zero counts as `TINY`."""
    return float(errors.clamp_min(TINY).log().mean().exp())
