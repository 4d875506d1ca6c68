"""`wall_x`: the whole vision-language model runs over prompt, images and actions at every denoising step.

The sampler reads positions and experts of the prompt's tokens in Python, so a plan holds for one prompt.
"""

from __future__ import annotations

import inspect
from typing import Any

from bac.adapters.flow import Flow, place
from bac.adapters.host import Host
from bac.adapters.layers import FEED, SELF, layer_blocks
from bac.adapters.lerobot.flow import rising
from bac.errors import UnsupportedPolicyError


def host(policy: Any) -> Host:
    """Blocks of the language model's layers, dense or with experts.

    Raises:
        UnsupportedPolicyError: The policy is configured to decode action tokens.
    """
    mode = policy.config.prediction_mode
    if mode != "diffusion":
        raise UnsupportedPolicyError(
            f'WallXPolicy: decodes tokens one after the other in prediction_mode="{mode}"; set it to "diffusion"'
        )
    network, actions = policy.model.model, policy.model.action_preprocessor
    predict = type(policy.model).predict  # from the class: a wrapped instance has an interceptor here
    num_steps = int(inspect.signature(predict).parameters["num_inference_timesteps"].default)
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=network,
        sampler_owner=policy.model,
        sampler_attribute="predict",
        blocks=tuple(
            block
            for index, layer in enumerate(network.layers)
            for block in layer_blocks(
                "layers", index, layer, (("self_attn", SELF), ("moe" if layer.mlp is None else "mlp", FEED))
            )
        ),
        num_steps=num_steps,
        solver="Euler",
        timesteps=rising(num_steps),
        num_steps_argument="num_inference_timesteps",
        num_steps_default=True,
        flow=Flow(
            (
                place(actions, "step", sample="noisy_action", time="timestep"),
                place(actions.action_proj_back, answers=True),
            ),
            rising=True,
        ),
    )
