"""`vla_jepa`: a diffusion transformer whose layers attend to the observation and to themselves in turn."""

from __future__ import annotations

from typing import Any

from bac.adapters.host import Host
from bac.adapters.layers import alternating, memory_projections
from bac.adapters.lerobot.flow import rising


def host(policy: Any) -> Host:
    """The action head's sampler and layers; language model and world model are outside of the loop."""
    head = policy.model.action_model
    layers, num_steps = head.model.transformer_blocks, int(head.num_inference_timesteps)
    cross = [layer.is_cross_attention for layer in layers]
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=head.model,
        sampler_owner=head,
        sampler_attribute="predict_action",
        blocks=alternating("transformer_blocks", layers, cross),
        num_steps=num_steps,
        solver="Euler",
        timesteps=rising(num_steps),
        constants=memory_projections(layers, cross),
    )
