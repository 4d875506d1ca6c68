"""`evo1`: action tokens that attend to the observation alone, never to each other."""

from __future__ import annotations

from typing import Any

from bac.adapters.host import Host
from bac.adapters.layers import CROSS, FEED, blocks
from bac.adapters.lerobot.flow import rising


def host(policy: Any) -> Host:
    """No call is one whole evaluation, so each block counts its own."""
    head = policy.model.action_head
    num_steps = int(head.num_inference_timesteps)
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=head,
        sampler_owner=head,
        sampler_attribute="get_action",
        blocks=blocks("transformer_blocks", head.transformer_blocks, (("attn", CROSS), ("ff", FEED))),
        num_steps=num_steps,
        solver="Euler",
        timesteps=rising(num_steps),
        num_steps_at=(head, "num_inference_timesteps"),
        uncovered="seq_pool_proj and the output head",
    )
