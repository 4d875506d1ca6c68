"""`pi0` and `pi05`: a Gemma action expert that attends to itself and to the key-value cache of the observation."""

from __future__ import annotations

from typing import Any

from bac.adapters.host import Host
from bac.adapters.layers import FEED, SELF, blocks
from bac.adapters.lerobot.flow import falling, openpi


def host(policy: Any) -> Host:
    """The sampler first encodes the observation, without calling any layer of the expert."""
    expert = policy.model.paligemma_with_expert.gemma_expert.model
    num_steps = policy.config.num_inference_steps
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=expert,
        sampler_owner=policy.model,
        sampler_attribute="sample_actions",
        blocks=blocks("layers", expert.layers, (("self_attn", SELF), ("mlp", FEED))),
        num_steps=num_steps,
        solver="Euler",
        timesteps=falling(num_steps),
        num_steps_at=(policy.config, "num_inference_steps"),
        flow=openpi(policy.model),
    )
