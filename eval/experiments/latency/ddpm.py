"""DDPM's step on precomputed coefficients: the cost of a solver without diffusers' Python overhead."""

from collections.abc import Callable
from math import sqrt
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def precomputed_step(scheduler: Any) -> Callable[..., Any]:
    """Make DDPM's step for noise predictions (Ho et al., 2020, eq. 7) on precomputed coefficients.

    Args:
        scheduler: diffusers' DDPMScheduler with its timesteps set, fixed small variance, samples clipped to [-1, 1].
    """
    alphas = [float(scheduler.alphas_cumprod[t]) for t in scheduler.timesteps]
    table = {}
    for t, now, before in zip(scheduler.timesteps.tolist(), alphas, [*alphas[1:], 1.0], strict=True):
        alpha = now / before
        spread = sqrt(max((1 - before) / (1 - now) * (1 - alpha), 0.0))
        clean, noisy = sqrt(before) * (1 - alpha) / (1 - now), sqrt(alpha) * (1 - before) / (1 - now)
        table[t] = sqrt(1 - now), 1 / sqrt(now), clean, noisy, spread

    def step(prediction: Tensor, t: Tensor, sample: Tensor, generator: Any = None) -> Any:
        noise, inverse, clean, noisy, spread = table[int(t)]
        original = ((sample - noise * prediction) * inverse).clamp(-1, 1)
        previous = clean * original + noisy * sample
        if spread:
            previous = previous + spread * torch.randn(sample.shape, generator=generator, device=sample.device)
        return SimpleNamespace(prev_sample=previous)

    return step
