"""`groot` N1.7: a diffusion transformer whose layers attend to images, to text and to themselves in turn."""

from __future__ import annotations

from typing import Any

from bac.adapters.host import Host
from bac.adapters.lerobot.alternating import host_of


def host(policy: Any) -> Host:
    """Only the action head's denoiser is cached: its `vl_self_attention` runs once, outside the loop."""
    head = policy._groot_model.action_head
    cross = [layer.cross_attention_dim is not None for layer in head.model.transformer_blocks]
    return host_of(policy, head, "get_action_with_features", cross)
