"""The pipeline's denoising loop as a policy, so that `bac` can replay it from a plan.

A call of a pipeline turns lists of labels and generators into NumPy pictures. A plan cannot record such a call, so
`bac.wrap(pipe, schedule)` intercepts. The loop inside the pipeline takes noise and labels as tensors and returns a
tensor. It makes the same pictures, bit for bit, and `bac` replays it like a robot policy.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor, nn


class DenoisingLoop(nn.Module):
    """The denoising loop of diffusers' `DiTPipeline` without guidance, from noise to pictures.

    Args:
        transformer: Predicts the noise.
        noise_scheduler: A noise scheduler of diffusers.
        num_inference_steps: Denoising steps K.
    """

    def __init__(self, transformer: DiTTransformer2DModel, noise_scheduler: Any, num_inference_steps: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.noise_scheduler = noise_scheduler
        self.num_inference_steps = num_inference_steps

    def reset(self) -> None:
        """Do nothing: pictures do not depend on earlier ones."""

    @torch.no_grad()
    def predict_action_chunk(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Make pictures in one denoising run.

        Args:
            batch: ``noise``, `[B, 1, 8, 8]`, and ``class_labels``, `[B]`.

        Returns:
            Pictures, `[B, 1, 8, 8]`; ink is 1; not clipped to [-1, 1].
        """
        pictures, labels = batch["noise"], batch["class_labels"]
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for timestep in self.noise_scheduler.timesteps:
            timesteps = timestep[None].expand(len(pictures))
            noise = self.transformer(pictures, timestep=timesteps, class_labels=labels).sample
            pictures = self.noise_scheduler.step(noise, timestep, pictures).prev_sample
        return pictures
