"""The honest rivals: as many dense steps as BAC's measured latency buys, spaced as well as they can be."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import bac
from bac.tuning.timing import WARM_UP
from eval.measure.action_error import action_chunks, best_spacing, reference_of
from eval.measure.latency import Latency, measure, steps_within
from eval.setup.batches import Batch
from eval.setup.cells import SOLVERS, Cell, configure, dense, running

logger = logging.getLogger(__name__)
PROBES = (6, 24)
_EAGER, _INTERCEPTED = "eager dense", "intercepted "


@dataclass(frozen=True)
class Timings:
    """Latencies of the same interleaved rounds.

    Attributes:
        cells: Of every cell, replayed or not as asked for.
        eager: Of dense DDPM-100 as it is without `bac`: what speed-ups refer to.
        intercepted: Of cells asked for, through interceptors alone.
    """

    cells: dict[Cell, Latency]
    eager: Latency
    intercepted: dict[Cell, Latency]


def caller(
    loaded: Any, cell: Cell, denoising: bac.Denoising, batch: Batch, *, replay: bool | bac.Replay = False
) -> Callable[[], object]:
    """A call that makes one action chunk the cell's way, on a copy of the policy of its own.

    Args:
        loaded: Untouched policy with its processors.
        cell: How the policy is configured.
        denoising: What is put on it.
        batch: One preprocessed observation, `[1, To, D]` each.
        replay: As for `bac.wrap`. False runs dense cells eagerly and caches through interceptors; with replay all run
            from plans, so that nobody wins by the executor.
    """
    policy = copy.deepcopy(loaded.policy)
    policy.reset()
    configure(policy, cell)
    if replay or denoising != bac.Denoising():
        bac.wrap(policy, denoising, replay=replay)
    generator = torch.Generator().manual_seed(0)
    return lambda: policy.predict_action_chunk(batch, generator=generator)


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
    """Latency of every cell, interleaved with eager dense DDPM-100 and with some cells through interceptors alone."""
    is_eager_there = not replay and next(iter(cells)) == dense()
    calls = {} if is_eager_there else {_EAGER: caller(loaded, dense(), bac.Denoising(), batch)}
    calls |= {cell.name: caller(loaded, cell, cells[cell], batch, replay=replay) for cell in cells}
    calls |= {_INTERCEPTED + cell.name: caller(loaded, cell, cells[cell], batch) for cell in intercepted}
    measured = measure(calls, rounds=rounds, warmup=WARM_UP if replay else 1, progress=progress)
    return Timings(
        {cell: measured[cell.name] for cell in cells},
        next(iter(measured.values())),
        {cell: measured[_INTERCEPTED + cell.name] for cell in intercepted},
    )


def matched_steps(loaded: Any, target: Cell, denoising: bac.Denoising, batch: Batch, **options: Any) -> dict[str, int]:
    """For each solver, the most dense steps that take no longer than `target`.

    A line through two measured points proposes a number; its neighbours are then measured beside the target.

    Args:
        loaded: Untouched policy with its processors.
        target: The cell whose latency is the budget.
        denoising: What it puts on.
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
    """A dense cell to time: spacing costs nothing, and every solver can place any number of steps "leading"."""
    return dense(num_steps, solver, "leading")


class SpacingChooser:
    """Best timestep spacing for few-step cells, on calibration observations; dense references are made once.

    Args:
        policy: Untouched policy.
        batch: Preprocessed calibration observations.
        num_draws: Noise draws per observation, at least 2.
    """

    def __init__(self, policy: Any, batch: Batch, *, num_draws: int = 8) -> None:
        self._policy, self._batch, self._num_draws = policy, batch, num_draws
        self._references: dict[Cell, torch.Tensor] = {}

    def __call__(self, solver: str, num_steps: int) -> Cell:
        """The dense cell with the best spacing."""
        reference = self._reference(reference_of(dense(num_steps, solver)) or dense())
        spacing, distances = best_spacing(self._policy, solver, num_steps, self._batch, reference)
        logger.info("%s-%d: %s, of %s", solver, num_steps, spacing, distances)
        return dense(num_steps, solver, spacing)

    def _reference(self, cell: Cell) -> torch.Tensor:
        if cell not in self._references:
            with running(self._policy, cell):
                self._references[cell] = action_chunks(self._policy, self._batch, num_draws=self._num_draws)
        return self._references[cell]
