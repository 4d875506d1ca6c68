"""Observations that a policy visits by itself. Methods are calibrated and judged on them."""

from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from eval.play.pictures import predictor
from eval.play.rollout import EnvPool, play
from eval.setup.batches import Batch, spread
from eval.setup.cells import Cell, dense, running

VISIT = dense(8, "DDIM")  # few steps, since only the visited observations matter
POOL = 8


def visited(
    loaded: Any,
    make_env: Callable[[], Any],
    first_seed: int,
    count: int,
    *,
    cell: Cell = VISIT,
    episodes: int | None = None,
    progress: bool = False,
) -> Batch:
    """Play whole episodes, and return preprocessed observations evenly spread over them, `[count, To, D]` each.

    Args:
        loaded: Unwrapped policy with its processors.
        make_env: Makes a fresh world.
        first_seed: Seed of the first world.
        count: Number of observations.
        cell: The way the policy runs.
        episodes: Number of episodes; by default one for every four observations, and at least `POOL`.
        progress: Show a progress bar.
    """
    seen: list[Batch] = []
    num_episodes = episodes or max(POOL, count // 4)
    seeds = range(first_seed, first_seed + num_episodes)
    pool = EnvPool(make_env)
    try:
        with running(loaded.policy, cell):
            played = play(loaded, pool, seeds, pool_size=POOL, observe=seen.append, predict=predictor(loaded))
            for _ in tqdm(played, "observe", num_episodes, unit="episode", disable=not progress):
                pass
    finally:
        pool.close()
    return spread({key: torch.cat([batch[key] for batch in seen]) for key in seen[0]}, count)
