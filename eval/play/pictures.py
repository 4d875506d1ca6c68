"""Policies that see and read: a picture of the world, the agent's own state, and the task in words.

A picture is drawn only when a chunk is wanted. Drawing takes ten times as long as a control step.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import OBS_IMAGE, OBS_STATE

from eval.play.rollout import Seat, predict_chunks
from eval.setup.batches import Batch
from eval.setup.noise import paired_chunk
from policies.demonstrations import OBS_WRIST


def predictor(loaded: Any, *, whole: bool = False) -> Callable[..., np.ndarray]:
    """What predicts the chunks of a policy in `eval.play.rollout.take_turns`: from pictures if it sees any.

    Args:
        loaded: Policy with its processors, as `policies.load` returns it.
        whole: As for `predict_from_pictures`. Of a policy that sees no pictures `eval.play.realtime.whole_chunks`
            decides.
    """
    if not loaded.policy.config.image_features:
        return predict_chunks
    return partial(predict_from_pictures, whole=True) if whole else predict_from_pictures


def predict_from_pictures(
    loaded: Any, seats: Sequence[Seat], observe: Callable[[Batch], None] | None = None, *, whole: bool = False
) -> np.ndarray:
    """Predict the next chunk of every seat in one batch, `[B, Ta, Da]` float32 in the environment's units.

    It is `eval.play.rollout.predict_chunks` for LeRobot's own policies.

    Args:
        loaded: Policy with its processors, as `policies.load` returns it.
        seats: Running episodes whose worlds have a `picture` and an `instruction`, and a `wrist_picture` if the policy
            looks at it.
        observe: Called with the preprocessed batch of observations.
        whole: Return every row of the chunk, `[B, T, Da]`, as a world that does not wait needs.
    """
    config = loaded.policy.config
    raw = {
        OBS_STATE: torch.from_numpy(np.stack([seat.newest["agent_pos"] for seat in seats])),
        OBS_IMAGE: _pictures(seat.world.picture() for seat in seats),
        "task": [seat.world.instruction for seat in seats],
    }
    if OBS_WRIST in config.input_features:
        raw[OBS_WRIST] = _pictures(seat.world.wrist_picture() for seat in seats)
    with torch.inference_mode():
        batch = loaded.preprocessor(raw)
        seen = {key: value for key, value in batch.items() if key.startswith("observation.")}
        if observe is not None:
            observe(seen)
        chunk = paired_chunk(loaded.policy, seen, [seat.generator() for seat in seats])
        rows = config.chunk_size if whole else config.n_action_steps
        return loaded.postprocessor(chunk[:, :rows]).float().cpu().numpy()


def _pictures(drawn: Iterable[np.ndarray]) -> torch.Tensor:
    """Pictures as LeRobot has them, `[B, C, H, W]`, in [0, 1]."""
    return torch.from_numpy(np.stack(list(drawn))).movedim(-1, 1).float() / 255
