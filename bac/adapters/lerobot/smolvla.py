"""`smolvla`: an action expert with the attention of all layers inlined in one method, and residuals added in place.

``vlm_with_expert`` computes a layer's attention up to the heads' outputs in `forward_attn_layer` or
`forward_cross_attn_layer`, given the layer's index, and then calls that layer's ``o_proj`` and ``mlp``. An attention
block's output is therefore ``o_proj``'s; the method's call for that layer only feeds it. Residuals are added into the
results, so reuse hands out copies. During the prefill the same method fills the key-value cache; only calls within
`denoise_step` are evaluations. A reused self-attention does not append to that cache, so the policy then has nothing
to crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bac.adapters.host import Host
from bac.adapters.layers import CROSS, FEED, SELF
from bac.adapters.lerobot.flow import falling, openpi
from bac.caching.block import Block, Site
from bac.errors import UnsupportedPolicyError


@dataclass(frozen=True)
class ForLayer:
    """Picks the calls of ``forward_attn_layer(model_layers, inputs_embeds, layer_idx, ...)`` for one layer."""

    index: int

    def __call__(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
        return bool(options.get("layer_idx", inputs[2] if len(inputs) > 2 else None) == self.index)


def host(policy: Any) -> Host:
    """Attention and feed-forward blocks of the expert's layers.

    Raises:
        UnsupportedPolicyError: The policy was configured without a key-value cache.
    """
    model, num_steps = policy.model, policy.config.num_steps
    if not policy.config.use_cache:
        raise UnsupportedPolicyError(
            "SmolVLAPolicy: without a key-value cache its expert has no prefix to attend to; set use_cache=True"
        )
    blocks = _blocks(model.vlm_with_expert)
    experts = model.vlm_with_expert.lm_expert.layers
    attending = [experts[block.layer].self_attn for block in blocks if block.kind is CROSS]
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=model.vlm_with_expert.lm_expert,
        sampler_owner=model,
        sampler_attribute="sample_actions",
        blocks=blocks,
        num_steps=num_steps,
        solver="Euler",
        timesteps=falling(num_steps),
        num_steps_at=(policy.config, "num_steps"),
        flow=openpi(model),
        in_place=True,
        evaluation=Site(model, "denoise_step"),
        constants=tuple(Site(module) for attention in attending for module in (attention.k_proj, attention.v_proj)),
    )


def _blocks(model: Any) -> tuple[Block, ...]:
    """The expert's layers lie beside every n-th layer of the language model, as the expert may have fewer."""
    stride = model.num_vlm_layers // model.num_expert_layers
    found: list[Block] = []
    for index, layer in enumerate(model.lm_expert.layers):
        beside = index * stride
        every = model.self_attn_every_n_layers
        attends_to_itself = "cross" not in model.attention_mode or (every > 0 and beside % every == 0)
        kind, method = (SELF, "forward_attn_layer") if attends_to_itself else (CROSS, "forward_cross_attn_layer")
        feeder = Site(model, method, ForLayer(beside))
        found.append(Block(f"layers.{index}.attn", kind, index, layer.self_attn.o_proj, feeders=(feeder,)))
        found.append(Block(f"layers.{index}.mlp", FEED, index, layer.mlp))
    return tuple(found)
