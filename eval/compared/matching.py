"""Honest rivals: as many dense steps as BAC's measured latency buys, in the best timestep spacing."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import bac
from bac.tuning.timing import WARM_UP
from eval.measure.action_error import action_chunks, action_error, best_spacing, energy_distance
from eval.measure.latency import Latency, measure, steps_within
from eval.setup.batches import Batch
from eval.setup.cells import FLOW, SOLVERS, Cell, configure, dense, itself, running
from eval.setup.noise import paired_chunk

logger = logging.getLogger(__name__)
PROBES = (6, 24)
_EAGER, _INTERCEPTED = "eager dense", "intercepted "


@dataclass(frozen=True)
class Timings:
    """Latencies of the same interleaved rounds.

    Attributes:
        cells: Latency of every cell, with or without replay, as asked for.
        eager: Latency of dense DDPM-100 without `bac`, the reference of every speed-up.
        intercepted: Latency of the selected cells through interceptors alone.
    """

    cells: dict[Cell, Latency]
    eager: Latency
    intercepted: dict[Cell, Latency]


def caller(
    loaded: Any, cell: Cell, denoising: bac.Denoising, batch: Batch, *, replay: bool | bac.Replay = False
) -> Callable[[], object]:
    """Make a call that computes one action chunk of a cell. Every call owns a copy of the policy.

    Args:
        loaded: Unwrapped policy with its processors.
        cell: The policy's configuration.
        denoising: The Denoising that is put on the copy.
        batch: One preprocessed observation, `[1, To, D]` each.
        replay: As for `bac.wrap`. False runs dense cells eagerly and caches through interceptors. With replay every
            cell runs from a plan, so that no cell wins by its executor alone.
    """
    policy = copy.deepcopy(loaded.policy)
    policy.reset()
    configure(policy, cell)
    if replay or denoising != bac.Denoising():
        bac.wrap(policy, denoising, replay=replay)
    generator = torch.Generator().manual_seed(0)
    return lambda: paired_chunk(policy, batch, [generator])


def measure_cells(
    loaded: Any,
    cells: Mapping[Cell, bac.Denoising],
    batch: Batch,
    *,
    replay: bool | bac.Replay = False,
    rounds: int,
    progress: bool,
    intercepted: tuple[Cell, ...] = (),
) -> Timings:
    """Time every cell, interleaved with the eager policy itself and with some cells through interceptors alone."""
    first = next(iter(cells))
    is_eager_there = not replay and first == itself(first)
    calls = {} if is_eager_there else {_EAGER: caller(loaded, itself(first), bac.Denoising(), batch)}
    calls |= {cell.name: caller(loaded, cell, cells[cell], batch, replay=replay) for cell in cells}
    calls |= {_INTERCEPTED + cell.name: caller(loaded, cell, cells[cell], batch) for cell in intercepted}
    measured = measure(calls, rounds=rounds, warmup=WARM_UP if replay else 1, progress=progress)
    return Timings(
        {cell: measured[cell.name] for cell in cells},
        next(iter(measured.values())),
        {cell: measured[_INTERCEPTED + cell.name] for cell in intercepted},
    )


def matched_steps(loaded: Any, target: Cell, denoising: bac.Denoising, batch: Batch, **options: Any) -> dict[str, int]:
    """For each solver, find the most dense steps that take no longer than `target`.

    A line through two measured points proposes a number of steps. That number and its neighbours are then measured
    beside the target.

    Args:
        loaded: Unwrapped policy with its processors.
        target: The cell whose latency is the budget.
        denoising: The target's Denoising.
        batch: One preprocessed observation, `[1, To, D]` each.
        options: As for `measure_cells`; the rivals are replayed if the target is.

    Returns:
        Solver to number of steps, at least 1.
    """
    probes = {_timed(k, solver): bac.Denoising() for solver in SOLVERS for k in PROBES}
    first = measure_cells(loaded, {target: denoising, **probes}, batch, **options).cells
    few, many = PROBES
    guesses = {
        solver: steps_within(
            first[target].p50_ms,
            (few, first[_timed(few, solver)].p50_ms),
            (many, first[_timed(many, solver)].p50_ms),
        )
        for solver in SOLVERS
    }
    near = [_timed(k, s) for s, guess in guesses.items() for k in (guess - 1, guess, guess + 1) if 1 <= k <= 99]
    second = measure_cells(loaded, {target: denoising, **dict.fromkeys(near, bac.Denoising())}, batch, **options).cells
    budget = second[target].p50_ms
    affordable = [cell for cell in near if second[cell].p50_ms <= budget]
    return {
        solver: max((cell.num_steps for cell in affordable if cell.solver == solver), default=max(1, guess - 2))
        for solver, guess in guesses.items()
    }


def _timed(num_steps: int, solver: str) -> Cell:
    """A dense cell to time. Spacing does not change latency, and "leading" can place any number of steps."""
    return dense(num_steps, solver, "leading")


class SpacingChooser:
    """Chooses the timestep spacing in which few-step cells come closest to the policy itself, as it is configured.

    A policy that draws noise at every step is compared as a distribution (energy distance), a flow chunk by chunk from
    the same noise (action error). The policy's own chunks are made once.

    Args:
        policy: Unwrapped policy.
        batch: Preprocessed calibration observations.
        num_draws: Noise draws per observation, at least 2.
    """

    def __init__(self, policy: Any, batch: Batch, *, num_draws: int = 8) -> None:
        self._policy, self._batch, self._num_draws = policy, batch, num_draws
        self._references: dict[Cell, torch.Tensor] = {}

    def __call__(self, solver: str, num_steps: int) -> Cell:
        """The dense cell with the best spacing."""
        is_flow = solver == FLOW
        reference = self._own(dense(10, FLOW), 0) if is_flow else self._own(dense(), self._num_draws)
        measure = action_error if is_flow else energy_distance
        spacing, distances = best_spacing(self._policy, solver, num_steps, self._batch, reference, distance=measure)
        tried = ", ".join(f"{name} {value:.4f}" for name, value in distances.items())
        by = "action error" if is_flow else "energy distance, which may be negative"
        logger.info("%s-%d: %s timesteps are nearest to the policy (%s: %s)", solver, num_steps, spacing, by, tried)
        return dense(num_steps, solver, spacing)

    def _own(self, cell: Cell, first_draw: int) -> torch.Tensor:
        if cell not in self._references:
            options = {"num_draws": self._num_draws, "first_draw": first_draw}
            with running(self._policy, cell):
                self._references[cell] = action_chunks(self._policy, self._batch, **options)
        return self._references[cell]
