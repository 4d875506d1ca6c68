"""One policy that is told its task in words, played on many tasks in the same worlds and from the same noise."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from eval.play.metered import MeteredResult, MeteredSeat
from eval.play.pictures import predict_from_pictures
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, take_turns
from eval.setup.batches import Batch, kept, spread
from eval.setup.cells import Cell, running
from eval.setup.keys import comparison_key
from eval.setup.noise import chunk_generator, paired_chunk
from eval.setup.settings import CALIBRATION_SEED, Settings

VISITED_EPISODES = 2  # of every task, for observations


class ManyTasks:
    """The policy, its worlds, and the episodes that were played; they are kept on disk.

    Args:
        settings: Policy, world, seeds and folder; the task is replaced.
        tasks: Tasks of the world; every one plays all seeds.
        pixels: Height and width of the policy's pictures [pixels].
    """

    def __init__(self, settings: Settings, tasks: Sequence[str], pixels: int) -> None:
        size = {"width": pixels, "height": pixels}
        self.worlds = {
            task: replace(settings, task=task, env_options={**settings.env_options, **size, "task": task})
            for task in tasks
        }
        options_of_all = {key: value for key, value in settings.env_options.items() if key != "task"}
        self.settings = replace(settings, task="many-tasks", env_options={**options_of_all, **size})
        self.loaded = settings.load_policy()
        self.folder = self.settings.folder / "vla"
        self._pools: dict[str, EnvPool] = {}
        self.log: EpisodeLog[MeteredResult] = EpisodeLog(self.folder / "episodes.jsonl", MeteredResult)

    def play(self, cells: Sequence[Cell], only: Sequence[str] = ()) -> None:
        """Play the missing episodes of every way on every task.

        Args:
            cells: The ways.
            only: Play these tasks alone, while other processes play the others; default all.

        Raises:
            ValueError: One of `only` is none of the policy's tasks.
        """
        if unknown := [task for task in only if task not in self.worlds]:
            raise ValueError(f"only: {', '.join(unknown)}: no such task here. Known: {', '.join(self.worlds)}")
        worlds = {task: self.worlds[task] for task in only or self.worlds}
        total = len(cells) * len(worlds) * self.settings.n
        with tqdm(total=total, desc="episodes", unit="episode", disable=not self.settings.progress) as bar:
            for task, settings in worlds.items():
                pool = EnvPool(settings.make_env)
                for cell in cells:
                    done = self.log.episodes(self._key(cell, task))
                    missing = [seed for seed in settings.seeds if seed not in done]
                    bar.update(settings.n - len(missing))
                    for result in self._episodes(pool, cell, missing):
                        self.log.add(self._key(cell, task), result)
                        bar.update()
                pool.close()

    def results(self, cell: Cell, task: str) -> list[MeteredResult]:
        """The episodes of one way on one task, by seed."""
        done = self.log.episodes(self._key(cell, task))
        return [done[seed] for seed in self.settings.seeds]

    def episodes(self, cell: Cell, task: str, seeds: Sequence[int]) -> dict[int, MeteredResult]:
        """Episodes of one way on one task, by seed; those of `seeds` that are missing are played first."""
        key = self._key(cell, task)
        missing = [seed for seed in seeds if seed not in self.log.episodes(key)]
        pool = self._pools.setdefault(task, EnvPool(self.worlds[task].make_env))
        for result in self._episodes(pool, cell, missing):
            self.log.add(key, result)
        return self.log.episodes(key)

    def all_results(self, cell: Cell) -> list[MeteredResult]:
        """The episodes of one way on all tasks, task by task."""
        return [result for task in self.worlds for result in self.results(cell, task)]

    def observations(self, first_seed: int, count: int, cell: Cell) -> Batch:
        """Observations that one way visits by itself, evenly spread over all tasks, preprocessed; kept on disk.

        Args:
            first_seed: First seed of the worlds.
            count: Number of observations.
            cell: The way.
        """
        made_of = comparison_key({"tasks": list(self.worlds), "count": count, "seed": first_seed}, cell.describe())
        return kept(self.folder / f"observations-{made_of}.npz", lambda: self._visited(first_seed, count, cell))

    def _visited(self, first_seed: int, count: int, cell: Cell) -> Batch:
        seen: list[Batch] = []
        seeds = list(range(first_seed, first_seed + VISITED_EPISODES))
        for settings in tqdm(self.worlds.values(), "observe", unit="task", disable=not self.settings.progress):
            pool = EnvPool(settings.make_env)
            for _ in self._episodes(pool, cell, seeds, seen.append):
                pass
            pool.close()
        words = max(batch[_WORDS].shape[1] for batch in seen)
        padded = [{key: _pad(value, words) if key in _TOKENS else value for key, value in b.items()} for b in seen]
        return spread({key: torch.cat([batch[key] for batch in padded]) for key in seen[0]}, count)

    def _episodes(self, pool: EnvPool, cell: Cell, seeds: list[int], observe: Any = None) -> Iterator[MeteredResult]:
        seats = [MeteredSeat(pool[i], 1) for i in range(min(self.settings.pool_size, len(seeds)))]
        with running(self.loaded.policy, cell):
            self.loaded.policy.reset()
            yield from take_turns(self.loaded, seats, seeds, MeteredSeat.execute, observe, predict_from_pictures)

    def _key(self, cell: Cell, task: str) -> str:
        return comparison_key(self.worlds[task].identity, cell.describe())


def predict(policy: Any, batch: Batch, draw: int = 0) -> torch.Tensor:
    """One chunk for every observation, `[B, T, Da]`, from noise that depends on the row and on `draw` alone."""
    rows = range(len(next(iter(batch.values()))))
    policy.reset()
    with torch.no_grad():
        return paired_chunk(policy, batch, [chunk_generator(CALIBRATION_SEED + row, draw) for row in rows])


_WORDS = "observation.language.tokens"
_TOKENS = (_WORDS, "observation.language.attention_mask")


def _pad(tokens: torch.Tensor, length: int) -> torch.Tensor:
    """Tokens or their mask, `[B, L]`, with zeros up to `length`."""
    return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))
