"""Plays one policy on many tasks, each way in the same worlds and from the same noise."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from tqdm import tqdm

from bac.adapters import find_host
from bac.solvers.flow_fitting import FlowFitter
from eval.experiments.flow.rows import FITTED, fitted, own
from eval.measure.closed_loop import closed_loop
from eval.play.pictures import predict_from_pictures
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, EpisodeResult, Seat, take_turns
from eval.setup.batches import Batch, kept, spread
from eval.setup.cells import Cell, running
from eval.setup.files import write_json
from eval.setup.keys import comparison_key
from eval.setup.noise import chunk_generator
from eval.setup.settings import CALIBRATION_SEED, Settings

FIT_EPISODES = 2  # of every task


class ManyTasks:
    """The experiment. Episodes, fits and the observations for them are kept on disk.

    Args:
        settings: Policy, world, seeds and folder; the task is replaced.
        options: `vla` of ``configs/eval.yaml``.
    """

    def __init__(self, settings: Settings, options: Any) -> None:
        self.options = options
        tasks = options.tasks or [settings.task]
        size = {"width": options.pixels, "height": options.pixels}
        self.worlds = {
            task: replace(settings, task=task, env_options={**settings.env_options, **size, "task": task})
            for task in tasks
        }
        options_of_all = {key: value for key, value in settings.env_options.items() if key != "task"}
        self.settings = replace(settings, task="many-tasks", env_options={**options_of_all, **size})
        self.loaded = settings.load_policy()
        self.folder = self.settings.folder / "vla"
        self.log: EpisodeLog[EpisodeResult] = EpisodeLog(self.folder / "episodes.jsonl")

    @cached_property
    def cells(self) -> list[Cell]:
        """Every way; the policy itself first."""
        return [*(own(count) for count in self.options.own), *self._fits]

    def play(self) -> None:
        """Play the missing episodes of every way on every task."""
        total = len(self.cells) * len(self.worlds) * self.settings.n
        with tqdm(total=total, desc="episodes", unit="episode", disable=not self.settings.progress) as bar:
            for task, settings in self.worlds.items():
                pool = EnvPool(settings.make_env)
                for cell in self.cells:
                    done = self.log.episodes(self._key(cell, task))
                    missing = [seed for seed in settings.seeds if seed not in done]
                    bar.update(settings.n - len(missing))
                    for result in self._episodes(pool, cell, missing):
                        self.log.add(self._key(cell, task), result)
                        bar.update()
                pool.close()

    def results(self, cell: Cell, task: str) -> list[EpisodeResult]:
        """The episodes of one way on one task, by seed."""
        done = self.log.episodes(self._key(cell, task))
        return [done[seed] for seed in self.settings.seeds]

    def table(self) -> list[dict[str, Any]]:
        """One row for each way: success on every task and over all of them, with the difference to the first way."""
        rows = []
        for cell in self.cells:
            row: dict[str, Any] = {"name": cell.name, "group": cell.family, "steps": cell.steps, "tasks": {}}
            row["times"] = [] if cell.denoising is None else list(cell.denoising.timesteps)
            mine, first = ({task: self.results(c, task) for task in self.worlds} for c in (cell, self.cells[0]))
            for task in self.worlds:
                row["tasks"][task] = closed_loop(first[task], mine[task], by_score=False)
            everything = ([result for results in by_task.values() for result in results] for by_task in (first, mine))
            rows.append({**row, "all": closed_loop(*everything, by_score=False)})
        return rows

    @cached_property
    def _fits(self) -> list[Cell]:
        if not self.options.fitted:
            return []
        made_of = comparison_key({"tasks": list(self.worlds), "num_fit": self.options.num_fit})
        path = self.folder / f"fits-{made_of}.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        if missing := [count for count in self.options.fitted if str(count) not in stored]:
            batch = kept(self.folder / f"observations-{made_of}.npz", self._observations)
            with running(self.loaded.policy, own()):
                fitter = FlowFitter(find_host(self.loaded.policy), lambda: self._predict(batch))
                for count in missing:
                    stored[str(count)] = fitted(f"fitted-{count}", FITTED, fitter, fitter.fit, count).to_document()
            write_json(path, stored)
        return [Cell.from_document(stored[str(count)]) for count in self.options.fitted]

    def _observations(self) -> Batch:
        """Observations that the policy visits by itself, evenly spread over all tasks, in worlds of their own."""
        seen: list[Batch] = []
        seeds = range(CALIBRATION_SEED, CALIBRATION_SEED + FIT_EPISODES)
        for settings in tqdm(self.worlds.values(), "observe", unit="task", disable=not self.settings.progress):
            pool = EnvPool(settings.make_env)
            for _ in self._episodes(pool, own(), list(seeds), seen.append):
                pass
            pool.close()
        words = max(batch[_WORDS].shape[1] for batch in seen)
        padded = [{key: _pad(value, words) if key in _TOKENS else value for key, value in b.items()} for b in seen]
        return spread({key: torch.cat([batch[key] for batch in padded]) for key in seen[0]}, self.options.num_fit)

    def _predict(self, batch: Batch) -> torch.Tensor:
        """One chunk for every observation, from fixed noise."""
        config = self.loaded.policy.config
        noise = torch.randn(
            len(batch[_WORDS]), config.chunk_size, config.max_action_dim, generator=chunk_generator(CALIBRATION_SEED, 0)
        )
        with torch.no_grad():
            chunk: torch.Tensor = self.loaded.policy.predict_action_chunk(dict(batch), noise=noise)
        return chunk

    def _episodes(self, pool: EnvPool, cell: Cell, seeds: list[int], observe: Any = None) -> Iterator[EpisodeResult]:
        seats = [Seat(pool[i], 1) for i in range(min(self.settings.pool_size, len(seeds)))]
        with running(self.loaded.policy, cell):
            self.loaded.policy.reset()
            yield from take_turns(self.loaded, seats, seeds, Seat.execute, observe, predict_from_pictures)

    def _key(self, cell: Cell, task: str) -> str:
        return comparison_key(self.worlds[task].identity, cell.describe())


_WORDS = "observation.language.tokens"
_TOKENS = (_WORDS, "observation.language.attention_mask")


def _pad(tokens: torch.Tensor, length: int) -> torch.Tensor:
    """Tokens or their mask, `[B, L]`, with zeros up to `length`."""
    return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))
