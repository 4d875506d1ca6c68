"""Loss and prediction of flow-matching policies that encode what they see once for many denoising steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from policies.recipes.where import ANSWER, Where


@dataclass(frozen=True)
class Encoded:
    """Observations, encoded.

    Attributes:
        cache: Keys and values of pictures and words, as the policy's sampler keeps them, `[B, ...]` each.
        velocity: The action expert: a number of draws, noisy actions `[draws * B, T, Da]` and times `[draws * B]`, in
            which 1 is noise, to velocities `[draws * B, T, Da]`. It reads `cache`.
        summary: What the language model makes of its last token, `[B, width]`; see `Where`.
    """

    cache: Any
    velocity: Callable[[int, Tensor, Tensor], Tensor]
    summary: Tensor


def flow_loss(
    policy: Any,
    batch: dict[str, Tensor],
    encode: Callable[[Any, dict[str, Tensor]], Encoded],
    draws: int,
    *,
    where: Where | None = None,
    weight: float = 1.0,
    noise: Tensor | None = None,
    time: Tensor | None = None,
) -> Tensor:
    """LeRobot's loss of pi0 and SmolVLA, with several draws of noise and time for every observation.

    Pictures and words are most of the work. They are encoded once, and every draw reads the same keys and values. With
    one draw it is the loss of the policy's own `forward`, where no action pads a chunk.

    Args:
        policy: The policy in training.
        batch: One observation and one chunk of actions for each row, normalised, with ``action_is_pad``.
        encode: Encodes the observations.
        draws: Draws for each row.
        where: Also asks what is encoded where things are; ``batch["observation.answer"]`` has the answers.
        weight: Weight of that loss.
        noise: The draws' noise, `[draws * B, T, Da]`; None draws it.
        time: The draws' time, `[draws * B]`, in [0, 1], where 1 is noise; None draws it.
    """
    encoded = encode(policy, batch)
    for layer in encoded.cache.layers:
        layer.keys, layer.values = (kept.repeat(draws, 1, 1, 1) for kept in (layer.keys, layer.values))
    actions = policy.prepare_action(batch).repeat(draws, 1, 1)
    noise = policy.model.sample_noise(actions.shape, actions.device) if noise is None else noise
    time = policy.model.sample_time(len(actions), actions.device) if time is None else time
    velocity = encoded.velocity(draws, torch.lerp(actions, noise, time[:, None, None]), time)
    inside = ~batch[f"{ACTION}_is_pad"].repeat(draws, 1)
    loss = (velocity - (noise - actions))[inside].square().mean()
    return loss if where is None else loss + weight * where.loss(encoded.summary, batch[ANSWER])


def first_actions(policy: Any, batch: dict[str, Tensor], seed: int) -> Tensor:
    """The actions that a policy executes from observations, `[B, Ta, Da]`, normalised; `seed` draws the noise."""
    config = policy.config
    seen = {key: value for key, value in batch.items() if not key.startswith(ACTION)}
    shape = (len(seen[OBS_STATE]), config.chunk_size, config.max_action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(config.device)
    chunk: Tensor = policy.predict_action_chunk(seen, noise=noise)
    return chunk[:, : config.n_action_steps]
