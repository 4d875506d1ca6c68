"""Observations that a policy visits by itself: what methods are made from and judged on."""

from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from eval.play.rollout import EnvPool, play
from eval.setup.batches import Batch, spread
from eval.setup.cells import Cell, dense, running

VISIT = dense(8, "DDIM")  # visits observations in a hurry
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
    """Preprocessed observations of whole episodes, evenly spread over them, `[count, To, D]` each.

    Args:
        loaded: Untouched policy with its processors.
        make_env: A fresh world.
        first_seed: Of the first world.
        count: Observations.
        cell: How the policy runs.
        episodes: How many; by default one for every four observations, and at least `POOL`.
        progress: Show a progress bar.
    """
    seen: list[Batch] = []
    num_episodes = episodes or max(POOL, count // 4)
    seeds = range(first_seed, first_seed + num_episodes)
    pool = EnvPool(make_env)
    try:
        with running(loaded.policy, cell):
            played = play(loaded, pool, seeds, pool_size=POOL, observe=seen.append)
            for _ in tqdm(played, "observe", num_episodes, unit="episode", disable=not progress):
                pass
    finally:
        pool.close()
    return spread({key: torch.cat([batch[key] for batch in seen]) for key in seen[0]}, count)
