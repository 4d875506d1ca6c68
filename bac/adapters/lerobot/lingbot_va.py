"""`lingbot_va`: one transformer denoises video latents and then actions, and keeps both in a cache for the next chunk.

Blocks are cached in the action loop, the longer one. The video loop runs as it is. At the last step of each loop,
self-attention writes the keys and values of the finished chunk, so it must be computed there.
"""

from __future__ import annotations

import copy
from typing import Any

from bac.adapters.host import Host
from bac.adapters.layers import CROSS, FEED, SELF, blocks
from bac.caching.block import Site

_KEEPS_OBSERVED = 2  # value of `update_cache`: the call only caches real observations and actions, denoising nothing


def host(policy: Any) -> Host:
    """A call of the transformer in action mode is an evaluation; one at noise level 0 follows the solver's steps."""
    scheduler = copy.deepcopy(policy._action_scheduler)
    scheduler.set_timesteps(policy.config.action_num_inference_steps)
    timesteps = (*(float(t) for t in scheduler.timesteps), 0.0)
    denoiser = policy.transformer
    found = blocks("blocks", denoiser.blocks, (("attn1", SELF), ("attn2", CROSS), ("ffn", FEED)))
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=denoiser,
        sampler_owner=policy,
        sampler_attribute="_infer",
        blocks=found,
        num_steps=len(timesteps),
        solver=type(scheduler).__name__,
        timesteps=timesteps,
        evaluation=Site(denoiser, "forward", _denoises_actions),
        constants=tuple(site for layer in denoiser.blocks for site in _text_projections(layer)),
        update_last=tuple(block.name for block in found if block.kind is SELF),
        uncovered="the loop over video latents",
    )


def _text_projections(layer: Any) -> tuple[Site, ...]:
    """Key and value projections of the text, which is constant."""
    return Site(layer.attn2.to_k), Site(layer.attn2.norm_k), Site(layer.attn2.to_v)


def _denoises_actions(inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
    return bool(options.get("action_mode")) and options.get("update_cache") != _KEEPS_OBSERVED
