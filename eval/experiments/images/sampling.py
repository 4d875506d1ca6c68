"""Put a method on the denoising loop, and make pictures. All methods share the noise, so pictures compare one by one.

A method is a cell (`eval.setup.cells`). Here it configures the loop's own noise scheduler and number of steps, and puts
its `bac.Denoising` on the loop, as on a policy.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

import bac
import bac.plan
from eval.experiments.images.data import NUM_CLASSES, SIZE
from eval.experiments.images.loop import DenoisingLoop
from eval.setup.batches import Batch
from eval.setup.cells import Cell

NOISE_SCHEDULERS = {"DDIM": DDIMScheduler, "DPM-Solver++": DPMSolverMultistepScheduler}


def configure_loop(loop: DenoisingLoop, cell: Cell) -> None:
    """Set the loop's own noise scheduler and number of steps."""
    loop.noise_scheduler = NOISE_SCHEDULERS[cell.solver].from_config(loop.noise_scheduler.config)
    loop.num_inference_steps = cell.num_steps


@contextmanager
def applied(loop: DenoisingLoop, cell: Cell) -> Iterator[DenoisingLoop]:
    """Let the loop follow a method through interceptors; restore the loop when the block ends."""
    before = loop.noise_scheduler, loop.num_inference_steps
    try:
        configure_loop(loop, cell)
        if cell.denoising is not None:
            bac.wrap(loop, cell.denoising, replay=False)
        yield loop
    finally:
        bac.unwrap(loop)
        loop.noise_scheduler, loop.num_inference_steps = before


def ready(loop: DenoisingLoop, cell: Cell, batch: Batch) -> DenoisingLoop:
    """Make a copy of a loop that replays a method. Its plan is recorded for the shapes of `batch`."""
    mine = copy.deepcopy(loop)
    configure_loop(mine, cell)
    bac.wrap(mine, cell.denoising, replay=bac.Replay(record="first"))
    bac.plan.record(mine, batch)
    return mine


def labels(count: int) -> list[int]:
    """Class labels of `count` pictures: all classes in turn."""
    return [index % NUM_CLASSES for index in range(count)]


def batch_of(count: int, seed: int) -> Batch:
    """Make noise and labels.

    Args:
        count: Number of pictures B. The noise of a picture depends only on its place and on the seed.
        seed: Seed of the noise.
    """
    noise = [torch.randn((1, 1, SIZE, SIZE), generator=generator) for generator in generators(count, seed)]
    return {"noise": torch.cat(noise), "class_labels": torch.tensor(labels(count))}


def generators(count: int, seed: int) -> list[torch.Generator]:
    """Generators of the noise, one for each picture, as a pipeline takes them."""
    return [torch.Generator().manual_seed(1_000_000 * (seed + 1) + place) for place in range(count)]


@torch.no_grad()
def pictures(loop: DenoisingLoop, batch: Batch) -> Tensor:
    """Make the pictures of a batch in one denoising run, `[B, 1, 8, 8]`, in [-1, 1]."""
    made: Tensor = loop.predict_action_chunk(batch)
    return made.clamp(-1, 1)
