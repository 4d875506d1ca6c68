"""Candidates, run: how far their actions are from the policy's own, and how long a chunk takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.recording import check_untouched, record_features
from bac.timing import chunk_seconds
from bac.tuning.candidate import Candidate, fewer_steps
from bac.tuning.fitting import Fitter, recorded
from bac.tuning.multistep import Multistep
from bac.tuning.solver import SOLVERS, injects_noise, solvers_of, takes_fewer_steps

Batch = Mapping[str, Any]
TURNS = 2  # each records its plan anew
TINY = 1e-12  # an error that is none still has a logarithm


@dataclass(frozen=True)
class Latency:
    """Of one action chunk of the first observation alone.

    Attributes:
        p50_s: Median [s].
        p95_s: 95th percentile [s].
    """

    p50_s: float
    p95_s: float


class Bench:
    """Runs candidates on one policy and leaves it as it was.

    The reference is the policy as it is given. If that injects noise, other solvers are compared with first-order
    DPM-Solver++ at all of its timesteps instead: only runs that share their draws can be compared.

    Args:
        policy: Not wrapped, in eval mode.
        batches: Observation batches by purpose, ``fit`` and ``held out``.
        executor: How latencies are measured, as for `bac.wrap`.
        seed: Of the noise.

    Raises:
        CalibrationError: The policy is wrapped.
    """

    def __init__(
        self, policy: Any, batches: Mapping[str, Sequence[Batch]], *, executor: str = "auto", seed: int = 0
    ) -> None:
        self.policy, self.batches, self.executor, self.seed = policy, batches, executor, seed
        check_untouched(policy)
        host = find_host(policy)
        self.names = tuple(block.name for block in host.blocks)
        self.num_steps = host.num_steps or _counted(policy, batches["fit"][0])
        self.solvers = solvers_of(host)
        self.takes_fewer_steps = takes_fewer_steps(host)
        self.grid = tuple(int(t) for t in host.timesteps) if self.solvers else ()
        self.dense = Candidate("dense", self.num_steps)
        self._injects_noise = injects_noise(host)
        self._errors: dict[tuple[Candidate, str], Tensor] = {}
        self._fitted: dict[tuple[int, ...], Multistep] = {}
        self._references: dict[tuple[Candidate, str], list[Tensor]] = {}

    def reference_of(self, candidate: Candidate) -> Candidate:
        """What a candidate's actions are compared with."""
        return self.dense if candidate.solver is None else self._dense_run

    @property
    def _dense_run(self) -> Candidate:
        """The dense run that other solvers are compared with."""
        return fewer_steps(SOLVERS[0], self.grid, range(len(self.grid))) if self._injects_noise else self.dense

    def error(self, candidate: Candidate, purpose: str = "fit") -> float:
        """Root mean square difference of the action chunk to the reference's on the same noise."""
        return float(self.errors(candidate, purpose).square().mean().sqrt())

    def typical_error(self, candidate: Candidate, purpose: str = "fit") -> float:
        """The same for each observation alone, and of these the geometric mean.

        A few observations at which a run comes to a fork (a gripper that opens or closes) make most of a mean square,
        whatever the candidate; here they count as much as any other.
        """
        return typical(self.errors(candidate, purpose))

    def errors(self, candidate: Candidate, purpose: str = "fit") -> Tensor:
        """Root mean square difference of every observation's action chunk to the reference's, `[N]`."""
        if (candidate, purpose) not in self._errors:
            key = self.reference_of(candidate), purpose
            if key not in self._references:
                self._references[key] = self.chunks(*key)
            pairs = zip(self.chunks(candidate, purpose), self._references[key], strict=True)
            squares = [(chunk - reference).square().flatten(1).mean(1) for chunk, reference in pairs]
            self._errors[candidate, purpose] = torch.cat(squares).sqrt()
        return self._errors[candidate, purpose]

    def fitted(self, timesteps: tuple[int, ...]) -> Multistep:
        """The multistep solver at these timesteps, fitted to the reference's runs."""
        if timesteps not in self._fitted:
            self._fitted[timesteps] = self._fitter(timesteps)
        return self._fitted[timesteps]

    @cached_property
    def _fitter(self) -> Fitter:
        batch, owner = merged(self.batches["fit"]), find_host(self.policy).sampler_owner

        def run() -> None:
            self._predict(batch, self.seed)

        take_off = self._dense_run.put_on(self.policy, executor="interpret")
        try:
            with recorded(owner.noise_scheduler) as states:
                run()
        finally:
            take_off()
        return Fitter(owner, run, states)

    def chunks(self, candidate: Candidate, purpose: str) -> list[Tensor]:
        """The action chunk of every batch, float64 on the CPU."""
        undo = candidate.put_on(self.policy, executor="interpret")
        try:
            return [self._predict(batch, self.seed + index) for index, batch in enumerate(self.batches[purpose])]
        finally:
            undo()

    def latencies(self, candidates: Sequence[Candidate], rounds: int) -> list[Latency]:
        """Time every candidate, a few chunks in turn, so that what else the machine does meets all of them.

        Args:
            candidates: To be timed on one observation.
            rounds: Chunks timed of each.
        """
        batch = rows(self.batches["held out"][0], slice(1))
        samples: list[list[float]] = [[] for _ in candidates]
        in_turn = -(-rounds // TURNS)
        for _ in range(TURNS):
            for candidate, seconds in zip(candidates, samples, strict=True):
                seconds += self._timed(candidate, batch, in_turn)
        return [Latency(*(float(np.percentile(seconds, q)) for q in (50, 95))) for seconds in samples]

    def _timed(self, candidate: Candidate, batch: Batch, count: int) -> list[float]:
        undo = candidate.put_on(self.policy, executor=self.executor)
        try:
            with _own_randomness(find_host(self.policy)):
                return chunk_seconds(self.policy, batch, count)
        finally:
            undo()

    def _predict(self, batch: Batch, seed: int) -> Tensor:
        host = find_host(self.policy)
        with _own_randomness(host), torch.no_grad():
            torch.manual_seed(seed)
            host.reset()
            chunk: Tensor = host.predict(dict(batch))
            return chunk.detach().double().cpu()


def _own_randomness(host: Host) -> Any:
    devices = {p.device for p in host.denoiser.parameters() if p.device.type == "cuda"}
    return torch.random.fork_rng(devices=list(devices))


def _counted(policy: Any, batch: Batch) -> int:
    """Denoising steps of a policy that does not tell before a run."""
    return len(next(iter(record_features(policy, batch).values())))


def rows(batch: Batch, which: slice) -> Batch:
    """Some observations of a batch; what is no tensor or list belongs to all of them."""
    return {key: value[which] if isinstance(value, (Tensor, list)) else value for key, value in batch.items()}


def typical(errors: Tensor) -> float:
    """Geometric mean; an error that is none counts as a tiny one."""
    return float(errors.clamp_min(TINY).log().mean().exp())


def merged(batches: Sequence[Batch]) -> Batch:
    """All observations in one batch; what is no tensor or list is taken from the first."""
    first, *others = batches
    if not others:
        return first
    return {key: _joined(value, [batch[key] for batch in others]) for key, value in first.items()}


def _joined(value: Any, others: Sequence[Any]) -> Any:
    if isinstance(value, Tensor):
        return torch.cat([value, *others])
    return sum(others, value) if isinstance(value, list) else value
