"""The seam: how far the action jumps where one chunk takes over from the last.

A way to be fast may keep the distribution of each chunk and still make consecutive chunks disagree, or the reverse. The
jump is measured on consecutive observations of the policy itself, so every way meets the same pairs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eval.play.rollout import EnvPool, play
from eval.setup.batches import Batch, spread
from eval.setup.cells import Cell, running

OBSERVATIONS_PER_EPISODE = 4
FEWEST_EPISODES = 8
_AFTER = "after/"  # prefix of the later observation's keys, so that a pair is one batch and one file


def jump(before: Tensor, after: Tensor) -> float:
    """Root mean square difference of the last action of one chunk and the first of the next, normalised units.

    Args:
        before: Executed actions at the earlier observations, `[draws, N, Ta, Da]`.
        after: Executed actions at the observations that follow, from other random numbers, of the same shape.
    """
    return float((after[:, :, 0].double() - before[:, :, -1].double()).square().mean().sqrt())


def visited_in_turn(loaded: Any, make_env: Callable[[], Any], first_seed: int, count: int, *, cell: Cell) -> Batch:
    """Play whole episodes one by one, and return pairs of consecutive observations, evenly spread over them.

    Args:
        loaded: Unwrapped policy with its processors.
        make_env: Makes a fresh world.
        first_seed: Seed of the first world.
        count: Number of pairs.
        cell: The way the policy runs.

    Returns:
        Preprocessed observations `[count, To, D]` each, and those of the next chunk as ``after/KEY``; see `halves`.
    """
    pairs: list[Batch] = []
    pool = EnvPool(make_env)
    try:
        with running(loaded.policy, cell):
            for seed in range(first_seed, first_seed + max(FEWEST_EPISODES, count // OBSERVATIONS_PER_EPISODE)):
                seen: list[Batch] = []
                list(play(loaded, pool, [seed], pool_size=1, observe=seen.append))
                pairs += [_joined(*pair) for pair in zip(seen, seen[1:], strict=False)]
    finally:
        pool.close()
    return spread({key: torch.cat([pair[key] for pair in pairs]) for key in pairs[0]}, count)


def halves(pairs: Batch) -> tuple[Batch, Batch]:
    """The earlier and the later observations of `visited_in_turn`, `[N, To, D]` each."""
    after = {key.removeprefix(_AFTER): values for key, values in pairs.items() if key.startswith(_AFTER)}
    return {key: pairs[key] for key in after}, after


def _joined(before: Batch, after: Batch) -> Batch:
    return before | {_AFTER + key: values for key, values in after.items()}
