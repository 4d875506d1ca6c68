"""Policies built on Diffusion Policy's transformer (DP-T): this repository's and the original package's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import nn

from bac.adapters import torch as torch_adapter
from bac.adapters.flow_scheduler import EULER, depends_on_the_call, flow_through, is_flow, why_not
from bac.adapters.host import Host, at, dotted_name


def host(policy: nn.Module, *, diffusion: str, denoiser: str, predict: str) -> Host:
    """Take apart a policy with the sampler ``conditional_sample`` and a noise scheduler of diffusers.

    Args:
        diffusion: Path to the module that has sampler, noise scheduler and number of steps; empty for the policy.
        denoiser: Path from that module to the network.
        predict: Path to the policy's method from observations to action chunk.
    """
    owner = at(policy, diffusion)
    network = at(owner, denoiser)
    found = Host(
        policy=policy,
        predict=at(policy, predict),
        reset=at(policy, "reset"),
        denoiser=network,
        sampler_owner=owner,
        sampler_attribute="conditional_sample",
        blocks=torch_adapter.transformer_blocks(network),
        batch_dim=torch_adapter.batch_dim(network),
    )
    return with_noise_scheduler(found)


def noise_schedule(noise_scheduler: Any, num_steps: int) -> tuple[str, tuple[float, ...]]:
    """Class name and timesteps of a noise scheduler of diffusers, which is left unchanged.

    No timesteps, if only a call decides them.
    """
    if depends_on_the_call(noise_scheduler):
        return type(noise_scheduler).__name__, ()
    mine = copy.deepcopy(noise_scheduler)  # set_timesteps would change the policy's own
    mine.set_timesteps(num_steps)
    return type(mine).__name__, tuple(float(t) for t in mine.timesteps)


@runtime_checkable
class SamplesItself(Protocol):
    """A module that reads its noise scheduler and its number of steps anew in every run."""

    noise_scheduler: Any
    num_inference_steps: Any


def samples_itself(policy: nn.Module) -> bool:
    """Whether a policy holds a noise scheduler of diffusers and its number of steps under their usual names."""
    if not isinstance(policy, SamplesItself) or not isinstance(policy.num_inference_steps, int):
        return False
    return not _SWAPPABLE.isdisjoint(map(dotted_name, type(policy.noise_scheduler).__mro__))


def with_noise_scheduler(host: Host) -> Host:
    """The same host, with solver, timesteps and number of steps read from its sampler's owner.

    Diffusion takes other noise schedulers of diffusers; a flow takes other steps in place of its own scheduler's.
    """
    owner = host.sampler_owner
    scheduler, num_steps = owner.noise_scheduler, int(owner.num_inference_steps)
    solver, timesteps = noise_schedule(scheduler, num_steps)
    found = replace(host, num_steps=num_steps, solver=solver, timesteps=timesteps, noise_scheduler=scheduler)
    if not is_flow(scheduler):
        return replace(found, takes_solvers=True)
    flow = flow_through(owner, "noise_scheduler")
    return replace(found, flow=flow, why_no_solver=why_not(scheduler), num_steps_at=(owner, "num_inference_steps"))


# Noise schedulers that our solvers are for; each evaluates the denoiser once a step.
_SWAPPABLE = {
    f"diffusers.schedulers.scheduling_{module}.{cls}Scheduler"
    for module, cls in (
        ("ddpm", "DDPM"), ("ddim", "DDIM"), ("dpmsolver_multistep", "DPMSolverMultistep"),
        ("unipc_multistep", "UniPCMultistep"), ("deis_multistep", "DEISMultistep"),
    )
} | {EULER}  # fmt: skip
_PACKAGE = "diffusion_policy.policy"
_ORIGINAL = partial(host, diffusion="", denoiser="model", predict="predict_action")

ADAPTERS: dict[str, Callable[[nn.Module], Host]] = {
    "policies.diffusion_transformer.modeling_diffusion_transformer.DiffusionTransformerPolicy": partial(
        host, diffusion="diffusion", denoiser="transformer", predict="predict_action_chunk"
    ),
    f"{_PACKAGE}.diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy": _ORIGINAL,
    f"{_PACKAGE}.diffusion_transformer_hybrid_image_policy.DiffusionTransformerHybridImagePolicy": _ORIGINAL,
}
