"""A sampler whose denoiser predicts half of the sample as noise, and DDIM as coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from bac.adapters.host import Host
from bac.solvers import Multistep
from bac.solvers.multistep import MultistepScheduler, level

HALF = torch.tensor([1.0, 0.5, 0.5, 0.5])  # alphas_cumprod by timestep
NO_CLIP = {"prediction_type": "epsilon", "clip_sample": False}


def trained(alphas: Tensor = HALF, **config: Any) -> SimpleNamespace:
    """What a noise scheduler says of the denoiser that it belongs to."""
    return SimpleNamespace(config={**NO_CLIP, **config}, alphas_cumprod=alphas, add_noise=None)


class Sampler:
    """Reads its noise scheduler and its number of steps anew in every run."""

    def __init__(self, scheduler: MultistepScheduler, start: Tensor) -> None:
        self.noise_scheduler, self.num_inference_steps, self.start = scheduler, len(scheduler.timesteps), start

    def run(self) -> Tensor:
        sample = self.start
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for timestep in self.noise_scheduler.timesteps:
            sample = self.noise_scheduler.step(0.5 * sample, timestep, sample).prev_sample
        return sample


def host_of(sampler: Sampler, **options: Any) -> Host:
    """A sampler, taken apart."""
    return Host(
        policy=sampler,
        predict=lambda _: sampler.run(),
        reset=lambda: None,
        denoiser=nn.Identity(),
        sampler_owner=sampler,
        sampler_attribute="run",
        blocks=(),
        **{"takes_solvers": True, **options},
    )


def ddim(alphas: Tensor, timesteps: Sequence[int]) -> Multistep:
    """DDIM as coefficients."""
    nexts = [level(float(alphas[t])) for t in timesteps[1:]] + [(1.0, 0.0)]
    return Multistep(tuple((*shares, 0.0, 0.0, 0.0)[: 5 if step else 3] for step, shares in enumerate(nexts)))


def dense(alphas: Tensor, timesteps: Sequence[int], start: Tensor) -> Sampler:
    """A sampler that runs DDIM at all of these timesteps."""
    return Sampler(ddim(alphas, timesteps).scheduler(trained(alphas), timesteps), start)
