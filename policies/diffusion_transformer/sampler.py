"""The sampler of DP-T: its denoiser, and the noise scheduler that drives it through a denoising run."""

from collections.abc import Sequence

from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor, nn

from policies.diffusion_transformer.solvers import (
    NoiseOptions,
    check_timesteps,
    make_noise_scheduler,
    set_timesteps,
)
from policies.diffusion_transformer.transformer import TransformerForDiffusion


class ActionSampler(nn.Module):
    """Samples actions from encoded observations. `use_solver` must be called before the first run.

    Args:
        transformer: The denoiser.
        config: Training options of the denoiser.
    """

    def __init__(self, transformer: TransformerForDiffusion, config: NoiseOptions) -> None:
        super().__init__()
        self.config = config
        self.transformer = transformer
        self.chunk_shape = transformer.chunk_shape

    def use_solver(
        self,
        name: str,
        num_inference_steps: int,
        timestep_spacing: str | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Choose the noise scheduler and the number of denoising steps of later runs.

        Args:
            name: One of `solvers.NOISE_SCHEDULERS`.
            num_inference_steps: Evaluations of the denoiser per run (K), 1..num_train_timesteps.
            timestep_spacing: "leading", "trailing" or "linspace"; `None` takes the noise scheduler's usual one.
            timesteps: Timesteps of the steps, `[K]`, decreasing; `None` takes the spacing's.

        Raises:
            ValueError: The noise scheduler or spacing does not exist, or cannot make these steps.
        """
        if not 1 <= num_inference_steps <= self.config.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps: must be in 1..{self.config.num_train_timesteps}, got {num_inference_steps}"
            )
        if timesteps is not None:
            if len(timesteps) != num_inference_steps:
                raise ValueError(
                    f"timesteps: must be as many as num_inference_steps, {num_inference_steps}, got {len(timesteps)}"
                )
            check_timesteps(name, timesteps, self.config.num_train_timesteps)
        noise_scheduler = make_noise_scheduler(self.config, name, timestep_spacing)
        set_timesteps(noise_scheduler, num_inference_steps, timesteps)
        self.noise_scheduler = noise_scheduler
        self.num_inference_steps = num_inference_steps
        self.timesteps = None if timesteps is None else tuple(timesteps)

    def conditional_sample(
        self,
        batch_size: int,
        cond: Tensor,
        noise: Tensor | None = None,
        generator: Generator | list[Generator] | None = None,
    ) -> Tensor:
        """Make one denoising run.

        Args:
            batch_size: Chunks sampled at once (B).
            cond: Encoded observations, `[B, To, Do]`.
            noise: Initial noise, `[B, T, Da]`; drawn if not given.
            generator: One generator for all rows, or a list of B.

        Returns:
            Normalised actions of the whole horizon, `[B, T, Da]`.
        """
        sample = noise
        if sample is None:
            shape = (batch_size, *self.chunk_shape)
            sample = randn_tensor(shape, generator=generator, device=cond.device, dtype=cond.dtype)
        set_timesteps(self.noise_scheduler, self.num_inference_steps, self.timesteps)
        timesteps = self.noise_scheduler.timesteps
        for t, timestep in zip(timesteps, timesteps.to(cond.device), strict=True):
            prediction = self.transformer(sample, timestep, cond)
            sample = self.noise_scheduler.step(prediction, t, sample, generator=generator).prev_sample
        return sample
