"""`groot` N1.7: a diffusion transformer whose layers attend to images, to text and to themselves in turn."""

from __future__ import annotations

from typing import Any

from bac.adapters.flow import Flow, place
from bac.adapters.host import Host
from bac.adapters.lerobot.alternating import host_of


def host(policy: Any) -> Host:
    """Only the action head's denoiser is cached: its `vl_self_attention` runs once, outside the loop."""
    head = policy._groot_model.action_head
    cross = [layer.cross_attention_dim is not None for layer in head.model.transformer_blocks]
    # The network gives velocities of states and actions; the loop takes the last rows, those of the actions.
    places = (
        place(head.action_encoder, sample="actions", time="timesteps"),
        place(head.model, time="timestep"),
        place(head.action_decoder, answers=True),
    )
    flow = Flow(places, rising=True, buckets=int(head.num_timestep_buckets))
    return host_of(policy, head, "get_action_with_features", cross, flow)
