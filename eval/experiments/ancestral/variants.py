"""Other ways to fit an ancestral solver than `bac.solvers.regression`, and to draw its noise.

- **own states**: the samples that a step is fitted on come from a run of the few steps themselves, which were fitted
  before it. From there the dense run goes on to the next kept timestep. So a step may correct what those before it did
  to the samples.
- **correlated**: what a fitted step leaves is correlated along a chunk, whose actions follow each other. The noise gets
  that correlation.
- **late steps deterministic**: the last steps but one follow DDIM and draw nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bac.adapters import find_host
from bac.solvers import Ancestral, Regression, recording
from bac.solvers.ancestral import AncestralScheduler
from bac.solvers.fitting import END
from bac.solvers.multistep import level
from bac.solvers.regression import posterior
from bac.tuning.batches import merged, tiled
from bac.tuning.bench import FITTING_DRAWS, Bench

JITTER = 1e-6  # of a covariance's mean variance, so that it has a root
SEED = 700_001  # of the runs to fit on, apart from those of the bench


def dense_runs(bench: Bench, seed: int = SEED) -> Regression:
    """The policy's own runs on the fitting observations, `FITTING_DRAWS` for each."""
    batch = tiled(merged(bench.batches["fit"]), FITTING_DRAWS)
    with recording(bench.host) as runs:
        find_host(bench.policy).predict_seeded(batch, seed)
    return Regression(bench.host.sampler_owner.noise_scheduler, runs.states, runs.outputs)


def on_own_states(bench: Bench, timesteps: Sequence[int]) -> Ancestral:
    """Fit every step on samples of the steps fitted before it, each continued by the dense run."""
    rows, scales = [], []
    for count, (timestep, later) in enumerate(zip(timesteps, [*timesteps[1:], END], strict=True)):
        runs = _continued(bench, Ancestral(tuple(rows), tuple(scales)) if rows else None, timesteps[:count], timestep)
        row, scale = runs.step(timesteps[count - 1] if count else None, timestep, later)
        rows.append(row)
        scales.append(scale)
    return Ancestral(tuple(rows), tuple(scales))


def _continued(bench: Bench, chain: Ancestral | None, kept: Sequence[int], timestep: int) -> Regression:
    """Runs of some fitted steps that the dense run continues from `timestep` to the end."""
    trained = bench.host.sampler_owner.noise_scheduler
    dense = [place for place in bench.grid if place <= timestep]
    levels = [level(float(trained.alphas_cumprod[place])) for place in dense] + [(1.0, 0.0)]
    own = [posterior(now, later) for now, later in zip(levels, levels[1:], strict=False)]
    rows, scales = (chain.coefficients, chain.scales) if chain else ((), ())
    for row, scale in own:  # which uses nothing of the step before
        rows, scales = (*rows, (*row, 0.0, 0.0) if rows else row), (*scales, scale)
    whole = Ancestral(rows, scales)
    batch = tiled(merged(bench.batches["fit"]), FITTING_DRAWS)
    with recording(bench.host, whole, [*kept, *dense]) as runs:
        find_host(bench.policy).predict_seeded(batch, SEED)
    return Regression(trained, runs.states, runs.outputs)


@dataclass(frozen=True)
class Correlated(Ancestral):
    """Draws noise that is correlated along the chunk.

    Attributes:
        roots: For every step a root of the correlation, `[T][T]`; of a chunk of T actions.
    """

    roots: tuple[tuple[tuple[float, ...], ...], ...] = ()
    name = "fitted ancestral, correlated"

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> AncestralScheduler:
        """See `bac.solvers.Solver.scheduler`."""
        self.check(timesteps)
        return _CorrelatedScheduler(trained, timesteps, self)


class _CorrelatedScheduler(AncestralScheduler):
    """Multiplies the noise of every step by its root."""

    def __init__(self, trained: Any, timesteps: Sequence[float], solver: Correlated) -> None:
        super().__init__(trained, timesteps, solver.coefficients, solver.scales)
        self.roots = [torch.tensor(root) for root in solver.roots]
        draw = self._draw
        self._draw = lambda shape, **options: self._root(draw(shape, **options))

    def _root(self, noise: Tensor) -> Tensor:
        return self.roots[self._step - 1].to(noise) @ noise  # the step was counted before its noise is drawn


def correlated(runs: Regression, timesteps: Sequence[int]) -> Correlated:
    """The fitted solver, with noise correlated as what its steps leave."""
    roots = []
    before: int | None = None
    for timestep, later in zip(timesteps, [*timesteps[1:], END], strict=True):
        roots.append(_root_of(runs.residual(before, timestep, later)[1]))
        before = timestep
    fitted = runs(timesteps)
    return Correlated(fitted.coefficients, fitted.scales, tuple(roots))


def _root_of(left: Tensor) -> tuple[tuple[float, ...], ...]:
    """Cholesky root of the correlation along time, `[T, T]`, averaged over rows and action dimensions."""
    along = left.movedim(1, -1).flatten(0, -2)  # [rows * Da, T]
    covariance = along.T @ along / len(along)
    mean = covariance.diagonal().mean()
    eye = torch.eye(len(covariance)).to(covariance)
    root = torch.linalg.cholesky(covariance / mean + JITTER * eye)
    return tuple(tuple(line) for line in root.tolist())


def late_deterministic(bench: Bench, solver: Ancestral, timesteps: Sequence[int], count: int) -> Ancestral:
    """The solver with `count` steps before the last that follow DDIM instead, and draw nothing."""
    trained = bench.host.sampler_owner.noise_scheduler
    rows, scales = list(solver.coefficients), list(solver.scales)
    for place in range(len(timesteps) - 1 - count, len(timesteps) - 1):
        clean, noise = level(float(trained.alphas_cumprod[timesteps[place + 1]]))
        rows[place], scales[place] = (clean, noise, *[0.0] * (len(rows[place]) - 2)), 0.0
    return replace(solver, coefficients=tuple(rows), scales=tuple(scales))


def variants(bench: Bench, runs: Regression, timesteps: Sequence[int]) -> Iterator[tuple[str, Ancestral]]:
    """Every variant by name, the solver of `bac` first."""
    fitted, own = runs(timesteps), on_own_states(bench, timesteps)
    yield "fitted ancestral", fitted
    yield "own states", own
    yield "correlated", correlated(runs, timesteps)
    for count in (1, 2):
        if count < len(timesteps) - 1:
            yield f"{count} late deterministic", late_deterministic(bench, fitted, timesteps, count)
