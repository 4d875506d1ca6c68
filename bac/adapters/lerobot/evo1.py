"""`evo1`: action tokens that attend to the observation alone, never to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bac.adapters.flow import Flow, Place, Stage, place
from bac.adapters.host import Host
from bac.adapters.layers import CROSS, FEED, blocks
from bac.adapters.lerobot.flow import rising
from bac.caching.block import Site


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
        flow=Flow(
            (
                Place(Site(head.time_pos_enc), _row_of_the_time),
                place(head, "_project_actions", sample="action_seq"),
                place(head.mlp_head, answers=True),
            ),
            rising=True,
            buckets=_LAST_ROW,
            guidance_argument="rtc_processor",
        ),
        uncovered="seq_pool_proj and the output head",
    )


_LAST_ROW = 999  # of its table of times: the time is multiplied by it and rounded down


def _row_of_the_time(stage: Stage, original: Callable[..., Any], inputs: tuple[Any, ...], options: Any) -> Any:
    """Answer with a table `[1, rows, D]` in which every row is that of the stage's time."""
    table = original(*inputs, **options)
    row = int(stage.time)
    return table[:, row : row + 1].expand_as(table)
