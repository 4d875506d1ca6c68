"""Action heads on diffusers' DiT, whose layers attend to the observation and to themselves in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bac.adapters.flow import Flow
from bac.adapters.host import Host
from bac.adapters.layers import alternating, memory_projections
from bac.adapters.lerobot.flow import rising


def host_of(policy: Any, head: Any, sampler_attribute: str, cross: Sequence[bool], flow: Flow) -> Host:
    """The head's sampler and layers.

    Args:
        head: Module with the denoiser as ``model``.
        sampler_attribute: Its method that makes a denoising run.
        cross: For each layer, whether it attends to the observation.
        flow: Where sample, time and velocity pass.
    """
    layers, num_steps = head.model.transformer_blocks, int(head.num_inference_timesteps)
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=head.model,
        sampler_owner=head,
        sampler_attribute=sampler_attribute,
        blocks=alternating("transformer_blocks", layers, cross),
        num_steps=num_steps,
        solver="Euler",
        timesteps=rising(num_steps),
        num_steps_at=(head, "num_inference_timesteps"),
        flow=flow,
        constants=memory_projections(layers, cross),
    )
