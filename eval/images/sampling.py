"""Ways to make pictures, and the pictures they make: on the same noise, so that they can be compared one by one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

import bac
from bac.estimators import Estimator
from eval.images.data import NUM_CLASSES

SOLVERS = {"DDIM": DDIMScheduler, "DPM-Solver++": DPMSolverMultistepScheduler}
NONE = "none"


@dataclass(frozen=True)
class Method:
    """One way to make pictures.

    Attributes:
        scheduler: When blocks update; ``dense`` or ``fewer steps`` update all.
        solver: One of `SOLVERS`.
        num_steps: Denoising steps K.
        schedule: None if everything is computed.
        estimator: None likewise.
    """

    scheduler: str
    solver: str
    num_steps: int
    schedule: bac.Schedule | None = None
    estimator: Estimator | None = None

    @property
    def estimator_name(self) -> str:
        """As tables say it."""
        return self.estimator.name if self.estimator else NONE

    @property
    def cells(self) -> float:
        """Share of the block evaluations that are made, in (0, 1]."""
        return self.schedule.num_sweeps / self.num_steps if self.schedule else 1.0


class Samples(NamedTuple):
    """Pictures of one call.

    Attributes:
        images: `[B, 1, 8, 8]`, in [-1, 1].
        cpu_s: CPU time of the call [s].
    """

    images: Tensor
    cpu_s: float


@contextmanager
def applied(pipe: Any, method: Method) -> Iterator[Any]:
    """Set a pipeline to a method for the duration of a `with`."""
    before = pipe.scheduler
    pipe.scheduler = SOLVERS[method.solver].from_config(before.config)
    if method.schedule is not None:
        bac.wrap(pipe, method.schedule, estimator=method.estimator)
    try:
        yield pipe
    finally:
        bac.unwrap(pipe)
        pipe.scheduler = before


def labels(count: int) -> list[int]:
    """All classes in turn."""
    return [index % NUM_CLASSES for index in range(count)]


def arguments(count: int, num_steps: int, seed: int) -> dict[str, Any]:
    """Of the pipeline's call.

    Args:
        count: Pictures B. The noise of a picture depends on its place and on the seed, and on nothing else.
        num_steps: Denoising steps.
        seed: Of the noise.
    """
    return {
        "class_labels": labels(count),
        "guidance_scale": 1.0,
        "generator": [torch.Generator().manual_seed(1_000_000 * (seed + 1) + place) for place in range(count)],
        "num_inference_steps": num_steps,
        "output_type": "np",
    }


def sample(pipe: Any, method: Method, count: int, seed: int) -> Samples:
    """Make pictures."""
    given = arguments(count, method.num_steps, seed)
    with applied(pipe, method):
        start = time.process_time()
        images = pipe(**given).images
        cpu_s = time.process_time() - start
    return Samples(torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1, cpu_s)
