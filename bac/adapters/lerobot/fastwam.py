"""`fastwam`: an action expert beside a video expert, with attention spread over methods of layer and block.

A layer projects queries, keys and values (``project_self_attention`` of the action block). It attends to them and to
the video's cached ones (``_mixed_attention`` of the layer). It projects the result
(``project_self_attention_output``), which is the block's output; the first two calls only feed it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from bac.adapters.flow import Flow, Stage, Stepper
from bac.adapters.host import Host
from bac.adapters.layers import CROSS, FEED, SELF
from bac.caching.block import Block, Site


def host(policy: Any) -> Host:
    """The sampler takes one observation, so a batch is one denoising run after the other."""
    model, num_steps = policy.model, int(policy.config.num_inference_steps)
    timesteps, _ = model.infer_action_scheduler.build_inference_schedule(
        num_inference_steps=num_steps,
        device=torch.device("cpu"),
        dtype=torch.float32,
        shift_override=policy.config.sigma_shift,
    )
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=model.mot,
        sampler_owner=model,
        sampler_attribute="infer_action",
        blocks=tuple(block for index, layer in enumerate(model.mot.layers) for block in _blocks(index, layer)),
        num_steps=num_steps,
        solver=type(model.infer_action_scheduler).__name__,
        timesteps=tuple(map(float, timesteps)),
        num_steps_argument="num_inference_steps",
        flow=Flow(steppers=(Stepper(model, "infer_action_scheduler", partial(_Steps, model.infer_action_scheduler)),)),
        evaluation=Site(model.mot, "forward_action_with_video_cache"),
        constants=tuple(site for layer in model.mot.layers for site in _text_projections(layer)),
    )


def _blocks(index: int, layer: Any) -> tuple[Block, ...]:
    action, path = layer.blocks["action"], f"layers.{index}.blocks.action"
    feeders = (Site(action, "project_self_attention"), Site(layer, "_mixed_attention"))
    return (
        Block(f"{path}.self_attn", SELF, index, action, "project_self_attention_output", feeders),
        Block(f"{path}.cross_attn", CROSS, index, action, "apply_cross_attention"),
        Block(f"{path}.ffn", FEED, index, action.ffn),
    )


def _text_projections(layer: Any) -> tuple[Site, ...]:
    """Key and value projections of the text, which is constant."""
    attention = layer.blocks["action"].cross_attn
    return Site(attention.k), Site(attention.norm_k), Site(attention.v)


class _Steps:
    """Stands in for the scheduler of the actions: the times are the stage's, and so is the step."""

    def __init__(self, own: Any, stage: Stage) -> None:
        self._num_trained, self._stage = int(own.num_train_timesteps), stage

    def build_inference_schedule(
        self, num_inference_steps: int, device: Any, dtype: torch.dtype, shift_override: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The times, as the denoiser was trained on them, and steps that nobody reads."""
        times = torch.tensor(self._stage.times, device=device) * self._num_trained
        return times.to(dtype), torch.zeros_like(times)

    def step(self, model_output: Tensor, delta: Tensor, sample: Tensor) -> Tensor:
        """The stage's step, rounded once to the sample's dtype."""
        return self._stage.advance(sample, model_output).to(sample.dtype)
