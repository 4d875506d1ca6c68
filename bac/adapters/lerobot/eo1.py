"""`eo1`: the whole vision-language model denoises the action tokens, after the same layers encoded the observation."""

from __future__ import annotations

from typing import Any

from bac.adapters.flow import Flow, place
from bac.adapters.host import Host
from bac.adapters.layers import FEED, SELF, blocks
from bac.adapters.lerobot.flow import falling
from bac.caching.block import Site


def host(policy: Any) -> Host:
    """A call is an evaluation if it brings the observation's key-value cache.

    A reused attention does not append to that cache, so the policy then has nothing to crop.
    """
    model, num_steps = policy.model, int(policy.config.num_denoise_steps)
    network = model.vlm_backbone.model
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=network.language_model,
        sampler_owner=model,
        sampler_attribute="sample_actions",
        blocks=blocks("layers", network.language_model.layers, (("self_attn", SELF), ("mlp", FEED))),
        num_steps=num_steps,
        solver="Euler",
        timesteps=falling(num_steps),
        num_steps_at=(policy.config, "num_denoise_steps"),
        flow=Flow(
            (
                place(model, "embed_suffix", sample="noisy_actions", time="timestep"),
                place(model.action_out_proj, answers=True),
            )
        ),
        evaluation=Site(network, "forward", _brings_a_cache),
    )


def _brings_a_cache(inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
    return options.get("past_key_values") is not None
