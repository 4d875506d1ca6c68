"""Ways to make pictures, and the pictures they make: on the same noise, so that they can be compared one by one."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

import bac
from bac.caching.estimators import Estimator
from bac.tuning import SOLVERS as BY_ORDER
from bac.tuning import Multistep
from eval.experiments.images.data import NUM_CLASSES, SIZE
from eval.experiments.images.loop import DenoisingLoop

SOLVERS = {"DDIM": DDIMScheduler, "DPM-Solver++": DPMSolverMultistepScheduler}
NONE = "none"


@dataclass(frozen=True)
class Method:
    """One way to make pictures.

    Attributes:
        scheduler: When blocks update; ``dense`` or ``fewer steps...`` update all.
        solver: One of `SOLVERS`: whose uncached pictures these are compared with.
        num_steps: Denoising steps K.
        schedule: None if everything is computed.
        estimator: None likewise.
        timesteps: Placed ones, `[K]`, decreasing; the solver's own, evenly spaced, if empty.
        order: Of DPM-Solver++ at placed timesteps; the first order is DDIM.
        weights: Of a fitted multistep solver at placed timesteps, instead of DPM-Solver++.
        stands_for: Dense steps K that a fitted solver's few steps stand for.
    """

    scheduler: str
    solver: str
    num_steps: int
    schedule: bac.Schedule | None = None
    estimator: Estimator | None = None
    timesteps: tuple[int, ...] = ()
    order: int = 1
    weights: tuple[tuple[float, ...], ...] = ()
    stands_for: int = 0

    @property
    def estimator_name(self) -> str:
        """As tables say it."""
        if self.weights:
            return "multistep"
        return self.estimator.name if self.estimator else NONE

    @property
    def cells(self) -> float:
        """Share of the block evaluations that are made, in (0, 1]."""
        if self.stands_for:
            return self.num_steps / self.stands_for
        return self.schedule.num_sweeps / self.num_steps if self.schedule else 1.0

    @property
    def places(self) -> tuple[int, ...]:
        """The update steps, where all blocks share them, or the timesteps that were placed."""
        if self.schedule is None:
            return self.timesteps
        lists = set(self.schedule.update_steps.values())
        return lists.pop() if len(lists) == 1 else ()


class Samples(NamedTuple):
    """Pictures of one seed.

    Attributes:
        images: `[B, 1, 8, 8]`, in [-1, 1].
        cpu_s: CPU time of one denoising run on one thread, for every time it was repeated [s].
    """

    images: Tensor
    cpu_s: tuple[float, ...]


def put_on(loop: DenoisingLoop, method: Method, executor: str) -> None:
    """Set a loop to a method.

    Args:
        loop: Untouched.
        method: What to set it to.
        executor: As for `bac.wrap`.
    """
    if method.weights:
        Multistep(method.weights).apply(loop, method.timesteps)
    elif method.timesteps:
        BY_ORDER[method.order - 1].apply(loop, method.timesteps)
    else:
        loop.noise_scheduler = SOLVERS[method.solver].from_config(loop.noise_scheduler.config)
        loop.num_inference_steps = method.num_steps
    if method.schedule is not None or executor != "interpret":
        bac.wrap(loop, method.schedule, estimator=method.estimator, executor=executor)


@contextmanager
def applied(loop: DenoisingLoop, method: Method) -> Iterator[DenoisingLoop]:
    """Set a loop to a method for the duration of a `with`, blocks intercepted."""
    before = loop.noise_scheduler, loop.num_inference_steps
    try:
        put_on(loop, method, "interpret")
        yield loop
    finally:
        bac.unwrap(loop)
        loop.noise_scheduler, loop.num_inference_steps = before


def ready(loop: DenoisingLoop, method: Method, batch: dict[str, Tensor]) -> DenoisingLoop:
    """A copy of a loop, set to a method, with its plan recorded for pictures like those of a batch."""
    mine = copy.deepcopy(loop)
    put_on(mine, method, "replay")
    bac.plan.record(mine, batch)
    return mine


def labels(count: int) -> list[int]:
    """All classes in turn."""
    return [index % NUM_CLASSES for index in range(count)]


def batch_of(count: int, seed: int) -> dict[str, Tensor]:
    """Noise and labels.

    Args:
        count: Pictures B. The noise of a picture depends on its place and on the seed, and on nothing else.
        seed: Of the noise.
    """
    return {"noise": torch.cat([_noise(generator) for generator in generators(count, seed)]),
            "class_labels": torch.tensor(labels(count))}  # fmt: skip


def generators(count: int, seed: int) -> list[torch.Generator]:
    """One for each picture, as a pipeline takes them."""
    return [torch.Generator().manual_seed(1_000_000 * (seed + 1) + place) for place in range(count)]


def pictures(loop: DenoisingLoop, batch: dict[str, Tensor]) -> Tensor:
    """One denoising run; `[B, 1, 8, 8]`, in [-1, 1]."""
    made: Tensor = loop.predict_action_chunk(batch)
    return made.clamp(-1, 1)


def sample(loop: DenoisingLoop, count: int, seed: int, repeats: int = 1) -> Samples:
    """Make pictures, and make them again to time it."""
    batch = batch_of(count, seed)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        images = loop.predict_action_chunk(batch)
        seconds.append(time.process_time() - start)
    return Samples(images.clamp(-1, 1), tuple(seconds))


def _noise(generator: torch.Generator) -> Tensor:
    return torch.randn((1, 1, SIZE, SIZE), generator=generator)
