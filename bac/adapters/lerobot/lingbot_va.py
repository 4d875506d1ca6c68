"""`lingbot_va`: one transformer denoises video latents and then actions, and keeps both in a cache for the next chunk.

Blocks are cached in the action loop, the longer one. The video loop runs as it is. At the last step of each loop,
self-attention writes the keys and values of the finished chunk, so it must be computed there.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bac.adapters.flow import Flow, Stage, Stepper
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
        flow=Flow(
            steppers=(Stepper(policy, "_action_scheduler", partial(_Steps, policy._action_scheduler)),),
            num_extra=1,  # at time 0, only to keep the finished actions
        ),
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


class _Steps:
    """Stands in for the scheduler of the actions: the times are the stage's, and so is the step."""

    def __init__(self, own: Any, stage: Stage) -> None:
        self._stage = stage
        self.timesteps = torch.tensor(stage.times) * int(own.num_train_timesteps)

    def set_timesteps(self, *_: Any, **__: Any) -> None:
        """Begin a run. The times do not change."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **_: Any) -> Tensor:
        """The stage's step, from the guided velocity, rounded once to the sample's dtype."""
        return self._stage.advance(sample, model_output).to(sample.dtype)
