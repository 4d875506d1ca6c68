"""diffusers' noise schedulers, under the names that configurations use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Generator, Tensor, tensor

FLOW = "FlowMatchEuler"  # of the denoisers that predict a velocity, and of no other
VELOCITY = "velocity"
NOISE_SCHEDULERS = ("DDPM", "DDIM", "DPM-Solver++", "DPM-Solver++ 1", "SDE-DPM-Solver++", "UniPC", FLOW)
TIMESTEP_SPACINGS = ("leading", "trailing", "linspace")
USUAL_SPACING = {"DDPM": "leading", "DDIM": "leading"}  # the multistep solvers use "trailing"


class NoiseOptions(Protocol):
    """The training options of a denoiser that its noise scheduler needs; see `DiffusionTransformerConfig`."""

    num_train_timesteps: int
    beta_schedule: str
    beta_start: float
    beta_end: float
    prediction_type: str
    clip_sample: bool
    clip_sample_range: float


@dataclass
class UsualNoise:
    """The `NoiseOptions` of Diffusion Policy, for a denoiser without a configuration."""

    num_train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0


class ExactDDIMScheduler(DDIMScheduler):
    """DDIM (eta = 0) whose every step leads to the next of its own timesteps.

    diffusers' DDIM always goes down by ``num_train_timesteps // num_inference_steps``. If the timesteps have another
    distance (such as 30 of 100 with "trailing" spacing), the sample's noise level differs from the timestep that the
    denoiser gets, and the last step may leave noise behind. If they have that distance, this is diffusers' DDIM.
    """

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, generator: Generator | None = None
    ) -> DDIMSchedulerOutput:
        """Make one step of Song et al. (2021), equation 12 with sigma = 0. `generator` is not used.

        Args:
            model_output: Predicted noise or clean actions, `[B, T, Da]`.
            timestep: One of `timesteps`, on the CPU.
            sample: Noisy actions, `[B, T, Da]`.
        """
        alpha = self.alphas_cumprod[timestep]
        below = self.timesteps[self.timesteps < timestep]
        next_alpha = self.alphas_cumprod[below[0]] if len(below) else self.final_alpha_cumprod
        if self.config.prediction_type == "epsilon":
            noise = model_output
            clean = (sample - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        else:
            clean = model_output
            noise = (sample - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        if self.config.clip_sample:
            limit = self.config.clip_sample_range
            clean = clean.clamp(-limit, limit)
        next_sample = next_alpha.sqrt() * clean + (1 - next_alpha).sqrt() * noise
        return DDIMSchedulerOutput(prev_sample=next_sample, pred_original_sample=clean)


class EvenFlowScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler's method on a flow, in steps of 1 / K from pure noise to clean actions, as pi0 and SmolVLA step.

    diffusers' own spacing evaluates at a share of noise of ``1 / num_train_timesteps`` last, however few the steps.
    """

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Prepare a run of so many steps."""
        super().set_timesteps(
            sigmas=[1 - step / num_inference_steps for step in range(num_inference_steps)], device=device
        )


def make_noise_scheduler(config: NoiseOptions, name: str, timestep_spacing: str | None = None) -> SchedulerMixin:
    """Build a noise scheduler for a denoiser trained under `config`.

    DDPM draws with the small (posterior) variance. DPM-Solver++ is the second-order multistep solver of Lu et al.
    (2022), and SDE-DPM-Solver++ is its form that injects noise. DPM-Solver++ 1 is its first-order form: DDIM, except
    that the noise is computed anew from the clipped actions. UniPC is the second-order solver of Zhao et al. (2023).

    The multistep solvers use thresholding with a largest value equal to the clip range, which clips the estimated
    actions just as DDPM and DDIM do. Without clipping, the estimates diverge at timesteps of almost pure noise.

    Args:
        name: One of `NOISE_SCHEDULERS`.
        timestep_spacing: One of `TIMESTEP_SPACINGS`; `None` takes `USUAL_SPACING`.

    Raises:
        ValueError: There is no such noise scheduler or spacing, or it is not for this kind of denoiser.
    """
    if name not in NOISE_SCHEDULERS:
        raise ValueError(f"solver: must be one of {', '.join(NOISE_SCHEDULERS)}, got {name!r}")
    if (name == FLOW) != (config.prediction_type == VELOCITY):
        raise ValueError(
            f"solver: {FLOW!r} is for denoisers that predict a {VELOCITY!r}, the others are for noise or clean "
            f"actions; got {name!r} for a denoiser that predicts {config.prediction_type!r}"
        )
    if name == FLOW:
        return EvenFlowScheduler(num_train_timesteps=config.num_train_timesteps)
    spacing = timestep_spacing or USUAL_SPACING.get(name, "trailing")
    if spacing not in TIMESTEP_SPACINGS:
        raise ValueError(f"timestep_spacing: must be one of {', '.join(TIMESTEP_SPACINGS)}, got {spacing!r}")
    shared = {
        "num_train_timesteps": config.num_train_timesteps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_schedule,
        "prediction_type": config.prediction_type,
        "timestep_spacing": spacing,
    }
    if name not in USUAL_SPACING:
        return _multistep(name, shared, config)
    clip = {"clip_sample": config.clip_sample, "clip_sample_range": config.clip_sample_range}
    if name == "DDIM":
        return ExactDDIMScheduler(**shared, **clip)
    return DDPMScheduler(**shared, **clip, variance_type="fixed_small")


def _multistep(name: str, shared: dict, config: NoiseOptions) -> SchedulerMixin:
    from diffusers import DPMSolverMultistepScheduler  # imports scipy's statistics, which takes a second

    clip = {"thresholding": config.clip_sample, "sample_max_value": config.clip_sample_range}
    if name == "UniPC":
        from policies.diffusion_transformer.unipc import DeterministicUniPCScheduler

        return DeterministicUniPCScheduler(**shared, **clip, solver_order=2, final_sigmas_type="zero")
    algorithm = "sde-dpmsolver++" if name.startswith("SDE") else "dpmsolver++"
    return DPMSolverMultistepScheduler(
        **shared, **clip, algorithm_type=algorithm, solver_order=1 if name[-1] == "1" else 2
    )


def set_timesteps(
    noise_scheduler: SchedulerMixin, num_inference_steps: int, timesteps: Sequence[int] | None = None
) -> None:
    """Prepare a noise scheduler for a denoising run of exactly `num_inference_steps` evaluations.

    Args:
        noise_scheduler: Noise scheduler from `make_noise_scheduler`.
        num_inference_steps: Denoising steps K.
        timesteps: Timesteps of the steps, `[K]`, decreasing; `None` takes the spacing's.

    Raises:
        ValueError: The noise scheduler cannot place that many distinct timesteps with its spacing.
    """
    if timesteps is not None:
        _place(noise_scheduler, timesteps)
        return
    noise_scheduler.set_timesteps(num_inference_steps)
    timesteps = noise_scheduler.timesteps.tolist()
    if len(set(timesteps)) != num_inference_steps or len(timesteps) != num_inference_steps:
        spacing = noise_scheduler.config.timestep_spacing
        raise ValueError(
            f"num_inference_steps: {type(noise_scheduler).__name__} with {spacing!r} spacing gives "
            f"{len(set(timesteps))} distinct timesteps for {num_inference_steps} steps. "
            f"Take another of {', '.join(TIMESTEP_SPACINGS)}, or another number of steps"
        )


def check_timesteps(name: str, timesteps: Sequence[int], num_train_timesteps: int) -> None:
    """Refuse timesteps that a denoising run cannot have.

    Raises:
        ValueError: The timesteps do not decrease or leave the trained range, or the solver takes no timesteps.
    """
    if list(timesteps) != sorted(set(timesteps), reverse=True) or not timesteps:
        raise ValueError(f"timesteps: must decrease, got {list(timesteps)}")
    if not 0 <= timesteps[-1] <= timesteps[0] < num_train_timesteps:
        raise ValueError(f"timesteps: must be in 0..{num_train_timesteps - 1}, got {list(timesteps)}")
    if name == FLOW:
        raise ValueError("timesteps: a flow's steps are even; put others on with bac.Denoising(solver='Euler', ...)")
    if name == "UniPC":
        raise ValueError("timesteps: diffusers' UniPC places its own; take timestep_spacing, or DPM-Solver++")


def _place(noise_scheduler: SchedulerMixin, timesteps: Sequence[int]) -> None:
    if isinstance(noise_scheduler, ExactDDIMScheduler):  # diffusers' setter takes no timesteps, but ours follows any
        noise_scheduler.num_inference_steps = len(timesteps)
        noise_scheduler.timesteps = tensor(timesteps)
    else:
        noise_scheduler.set_timesteps(timesteps=list(timesteps))
