"""`vla_jepa`: a diffusion transformer whose layers attend to the observation and to themselves in turn."""

from __future__ import annotations

from typing import Any

from bac.adapters.flow import Flow, place
from bac.adapters.host import Host
from bac.adapters.lerobot.alternating import host_of


def host(policy: Any) -> Host:
    """The action head's sampler and layers; language model and world model lie outside the loop."""
    head = policy.model.action_model
    places = (
        place(head, "_build_inputs", sample="actions", time="timesteps"),
        place(head.model, time="timestep"),
        place(head.action_decoder, answers=True),
    )
    flow = Flow(places, rising=True, buckets=int(head.config.action_num_timestep_buckets))
    cross = [layer.is_cross_attention for layer in head.model.transformer_blocks]
    return host_of(policy, head, "predict_action", cross, flow)
