"""Action error: how far a cell's actions are from the dense policy's on the same noise.

Action error is a quick measurement; success in closed loop is what counts. The reference depends on the solver, since
only runs that consume the same draws can be compared:

- a cached DDPM cell against the dense run of the same DDPM, which injects the same noise at every step;
- DDIM and DPM-Solver++ cells against dense DDIM-100 from the same initial noise (one deterministic path, finely cut);
- a flow's cells against its own ten steps from the same initial noise;
- DDPM with fewer steps draws other noise, so its error is undefined. To choose its timestep spacing, the energy
  distance between its actions and those of dense DDPM-100 is used, which compares distributions.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bac.tuning.bench import typical
from bac.tuning.distance import energy_distances
from eval.setup.batches import Batch
from eval.setup.cells import FLOW, SPACINGS, Cell, dense, running
from eval.setup.noise import chunk_generator, paired_chunk

logger = logging.getLogger(__name__)

# Seeds of the noise on recorded observations start here, far from the seeds of episodes.
FIRST_NOISE_SEED = 10_000_000


def reference_of(cell: Cell) -> Cell | None:
    """The dense cell that a cell's actions are compared with, or None if no dense cell shares its draws."""
    if cell.solver == FLOW:
        return dense(10, FLOW)
    if cell.solver != "DDPM" or (cell.denoising is not None and cell.denoising.solver is not None):
        return dense(100, "DDIM")
    if cell.is_dense and cell.num_steps != 100:
        return None
    return cell.sampler


def action_chunks(policy: Any, batch: Batch, *, num_draws: int, first_draw: int = 0) -> torch.Tensor:
    """Predict normalised action chunks for every observation and noise draw.

    Args:
        policy: Policy that is set to a cell, see `eval.setup.cells.running`.
        batch: Preprocessed observations, `[B, To, D]` each.
        num_draws: Noise draws per observation; draw d of row i is the same for every cell.
        first_draw: The first of these draws. Draws of different numbers are independent.

    Returns:
        The executed actions, `[num_draws, B, Ta, Da]`.
    """
    num_rows = len(next(iter(batch.values())))
    policy.reset()
    with torch.inference_mode():
        chunks = [
            paired_chunk(policy, batch, [chunk_generator(FIRST_NOISE_SEED + row, draw) for row in range(num_rows)])
            for draw in range(first_draw, first_draw + num_draws)
        ]
    return torch.stack(chunks).float().cpu()


def action_error(chunks: torch.Tensor, reference: torch.Tensor) -> float:
    """Root mean square difference over all executed actions, in normalised units (the data span 2)."""
    return float((chunks.double() - reference.double()).square().mean().sqrt())


def typical_error(chunks: torch.Tensor, reference: torch.Tensor) -> float:
    """The geometric mean over observations of each one's action error.

    A few observations at which the run can go two ways dominate the mean square; here they count like any other.

    Args:
        chunks: Actions of the method, `[num_draws, B, Ta, Da]`.
        reference: Actions of the dense reference, of the same shape.
    """
    squares = (chunks.double() - reference.double()).square().mean(dim=(0, 2, 3))
    return typical(squares.sqrt())


def energy_distance(chunks: torch.Tensor, reference: torch.Tensor) -> float:
    """Energy distance between two sets of samples, averaged over observations; see `bac.tuning.distance`.

    Args:
        chunks: Samples of one method, `[num_draws, B, Ta, Da]`.
        reference: Samples of the other, of the same shape.
    """
    return float(energy_distances(chunks, reference).mean())


def best_spacing(
    policy: Any,
    solver: str,
    num_steps: int,
    batch: Batch,
    reference: torch.Tensor,
    *,
    spacings: Sequence[str] = SPACINGS,
    distance: Callable[[torch.Tensor, torch.Tensor], float] | None = None,
) -> tuple[str, dict[str, float]]:
    """Choose the few-step solver's timestep spacing that comes closest to the dense policy.

    Args:
        policy: Unwrapped policy.
        solver: One of `eval.setup.cells.SOLVERS`.
        num_steps: Dense steps.
        batch: Preprocessed observations, `[B, To, D]` each; not those the action error is reported on.
        reference: Chunks of the solver's dense reference on `batch`, `[num_draws, B, Ta, Da]`.
        spacings: Timestep spacings to try.
        distance: Distance to minimise; by default the action error, or the energy distance for DDPM.

    Returns:
        The best spacing, and the distance of each.
    """
    distance = distance or (energy_distance if solver == "DDPM" else action_error)
    found: dict[str, float] = {}
    for spacing in spacings:
        try:
            with running(policy, dense(num_steps, solver, spacing)):
                found[spacing] = distance(action_chunks(policy, batch, num_draws=len(reference)), reference)
        except ValueError as error:  # this spacing cannot place so many distinct timesteps
            logger.info("%s-%d: spacing %s left out: %s", solver, num_steps, spacing, error)
    return min(found, key=lambda spacing: found[spacing]), found
