"""`groot` N1.7: a diffusion transformer whose layers attend to images, to text and to themselves in turn."""

from __future__ import annotations

from typing import Any

from bac.adapters.host import Host
from bac.adapters.layers import alternating, memory_projections
from bac.adapters.lerobot.flow import rising


def host(policy: Any) -> Host:
    """Of the action head only the denoiser: its `vl_self_attention` runs once and is no part of the loop."""
    head = policy._groot_model.action_head
    layers, num_steps = head.model.transformer_blocks, int(head.num_inference_timesteps)
    cross = [layer.cross_attention_dim is not None for layer in layers]
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=head.model,
        sampler_owner=head,
        sampler_attribute="get_action_with_features",
        blocks=alternating("transformer_blocks", layers, cross),
        num_steps=num_steps,
        solver="Euler",
        timesteps=rising(num_steps),
        constants=memory_projections(layers, cross),
    )
