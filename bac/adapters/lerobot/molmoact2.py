"""`molmoact2`: an action expert with one layer beside each layer of the language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bac.adapters.flow import Flow, Place, Stage, place
from bac.adapters.host import Host
from bac.adapters.layers import CROSS, FEED, SELF, blocks
from bac.adapters.lerobot.flow import rising
from bac.caching.block import Site
from bac.errors import UnsupportedPolicyError


def host(policy: Any) -> Host:
    """The run is `predict_action_chunk`: both samplers, with and without real-time chunking, are entered through it.

    Raises:
        UnsupportedPolicyError: The policy decodes discrete actions, or replays a CUDA graph of its own.
    """
    config, expert = policy.config, policy._action_expert()
    if config.inference_action_mode == "discrete":
        raise UnsupportedPolicyError(
            'MolmoAct2Policy: decodes tokens one after the other; set inference_action_mode="continuous"'
        )
    on_gpu = next(expert.parameters()).device.type == "cuda"
    if on_gpu and config.enable_inference_cuda_graph:
        raise UnsupportedPolicyError(
            "MolmoAct2Policy: replays a CUDA graph of its own, which would keep the schedule of its capture. Load it "
            "with enable_inference_cuda_graph=False"
        )
    num_steps = int(config.num_inference_steps or policy._backbone().config.flow_matching_num_steps)
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=expert,
        sampler_owner=policy,
        sampler_attribute="predict_action_chunk",
        blocks=blocks("blocks", expert.blocks, (("self_attn", SELF), ("cross_attn", CROSS), ("mlp", FEED))),
        num_steps=num_steps,
        solver="Euler",
        timesteps=rising(num_steps),
        num_steps_at=(config, "num_inference_steps"),
        flow=Flow(
            (
                place(expert, "forward_with_context", sample="actions", answers=True),
                Place(Site(expert, "prepare_modulation_cache"), _at_our_times),
                Place(Site(expert, "get_or_prepare_modulation_cache"), _under_our_key),
            ),
            rising=True,
            guidance=(policy, "rtc_processor"),
        ),
    )


def _at_our_times(stage: Stage, original: Callable[..., Any], inputs: tuple[Any, ...], options: Any) -> Any:
    """Modulations of all steps are computed before the loop, from a list of times, one tensor `[B]` for each step."""
    times = inputs[0] if inputs else options["timesteps"]
    return original([time.new_full(time.shape, told) for time, told in zip(times, stage.times, strict=True)])


def _under_our_key(stage: Stage, original: Callable[..., Any], inputs: tuple[Any, ...], options: Any) -> Any:
    """The expert keeps modulations by number of steps, not by their times: with ours in the key none is mistaken."""
    key = options.get("cache_key")
    return original(*inputs, **{**options, "cache_key": key and (*key, stage.times)})
