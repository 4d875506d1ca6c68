"""`xvla`: one transformer over action, observation and soft-prompt tokens, which predicts clean actions."""

from __future__ import annotations

from typing import Any

import torch

from bac.adapters.flow import Flow, place
from bac.adapters.host import Host
from bac.adapters.layers import FEED, SELF, blocks
from bac.adapters.lerobot.flow import falling


def host(policy: Any) -> Host:
    """Blocks are cached over the whole sequence, most of which is observation."""
    denoiser, num_steps = policy.model.transformer, max(1, int(policy.config.num_denoising_steps))
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=denoiser,
        sampler_owner=policy.model,
        sampler_attribute="generate_actions",
        blocks=blocks("blocks", denoiser.blocks, (("attn", SELF), ("mlp", FEED))),
        num_steps=num_steps,
        solver="CleanActionInterpolation",
        timesteps=falling(num_steps),
        num_steps_argument="steps",
        flow=Flow(
            (
                place(policy.model.action_space, "preprocess", sample="action"),
                place(denoiser, time="t", answers=True),
            ),
            clean=True,
            as_predicted=_hidden(policy.model.action_space, policy.model.dim_action),
        ),
    )


def _hidden(action_space: Any, width: int) -> tuple[int, ...]:
    """Channels that are zeroed before the denoiser sees them: grippers, which it predicts as logits."""
    ones = torch.ones(1, 1, width)
    _, seen = action_space.preprocess(ones[:, 0], ones)
    return tuple((seen[0, 0] == 0).nonzero().flatten().tolist())
