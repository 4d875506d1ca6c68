"""Plays one policy on many tasks, each way in the same worlds and from the same noise."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from bac.control import jerk_of
from eval.experiments.flow.rows import own
from eval.experiments.vla.measures import errors, evaluations, latencies
from eval.experiments.vla.ways import ways
from eval.measure.closed_loop import closed_loop
from eval.play.metered import MeteredResult, MeteredSeat
from eval.play.pictures import predict_from_pictures
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, take_turns
from eval.setup.batches import Batch, kept, spread
from eval.setup.cells import Cell, running
from eval.setup.files import write_json
from eval.setup.keys import comparison_key
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED, Settings

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
        self.log: EpisodeLog[MeteredResult] = EpisodeLog(self.folder / "episodes.jsonl", MeteredResult)

    @cached_property
    def cells(self) -> list[Cell]:
        """Every way; the policy itself first. What was fitted is kept, since episodes are found by what was played."""
        decides = {name: _plain(self.options[name]) for name in ("own", "fitted", "fitted_to_own", "bac", "num_fit")}
        made_of = comparison_key({"tasks": list(self.worlds), **decides})
        path = self.folder / f"cells-{made_of}.json"
        if not path.exists():
            found = ways(self.loaded.policy, self.options, lambda: self.observations(CALIBRATION_SEED))
            bar = tqdm(found, "fit", unit="way", disable=not self.settings.progress)
            write_json(path, [cell.to_document() for cell in bar])
        return [Cell.from_document(document) for document in json.loads(path.read_text())]

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

    def results(self, cell: Cell, task: str) -> list[MeteredResult]:
        """The episodes of one way on one task, by seed."""
        done = self.log.episodes(self._key(cell, task))
        return [done[seed] for seed in self.settings.seeds]

    def errors(self) -> dict[str, list[float]]:
        """Action errors of every way by name, on observations that nothing was fitted on; see `measures.errors`."""
        return self._kept("errors", lambda batch: errors(self.loaded.policy, self.cells, batch))

    def latencies_ms(self) -> dict[str, dict[str, Any]]:
        """Latency of every way by name, at batch 1; see `measures.latencies`."""
        rounds = self.options.rounds
        return self._kept("latency", lambda batch: latencies(self.loaded.policy, self.cells, batch, rounds))

    def table(self) -> list[dict[str, Any]]:
        """One row for each way: success on every task and over all, the difference to the first way, and its cost."""
        rows = []
        wrong, times = self.errors(), self.latencies_ms()
        for cell in self.cells:
            row: dict[str, Any] = {"name": cell.name, "group": cell.family, "steps": cell.steps, "tasks": {}}
            row["times"] = [] if cell.denoising is None else list(cell.denoising.timesteps)
            row |= {"evaluations": evaluations(cell), "error": wrong[cell.name], "latency": times[cell.name]}
            mine, first = ({task: self.results(c, task) for task in self.worlds} for c in (cell, self.cells[0]))
            for task in self.worlds:
                row["tasks"][task] = closed_loop(first[task], mine[task], by_score=False)
            everything = [[result for results in by_task.values() for result in results] for by_task in (first, mine)]
            row["jerk"] = asdict(jerk_of(*(_summed(everything[1], name) for name in ("squares", "counts"))))
            rows.append({**row, "all": closed_loop(*everything, by_score=False)})
        return rows

    def observations(self, first_seed: int) -> Batch:
        """Observations that the policy visits by itself, evenly spread over all tasks, in worlds of their own."""
        made_of = comparison_key({"tasks": list(self.worlds), "count": self.options.num_fit, "seed": first_seed})
        return kept(self.folder / f"observations-{made_of}.npz", lambda: self._visited(first_seed))

    def _visited(self, first_seed: int) -> Batch:
        seen: list[Batch] = []
        seeds = list(range(first_seed, first_seed + FIT_EPISODES))
        for settings in tqdm(self.worlds.values(), "observe", unit="task", disable=not self.settings.progress):
            pool = EnvPool(settings.make_env)
            for _ in self._episodes(pool, own(), seeds, seen.append):
                pass
            pool.close()
        words = max(batch[_WORDS].shape[1] for batch in seen)
        padded = [{key: _pad(value, words) if key in _TOKENS else value for key, value in b.items()} for b in seen]
        return spread({key: torch.cat([batch[key] for batch in padded]) for key in seen[0]}, self.options.num_fit)

    def _kept(self, name: str, find: Callable[[Batch], dict[str, Any]]) -> dict[str, Any]:
        """What is measured of all ways on held-out observations, kept on disk."""
        path = self.folder / f"{name}-{comparison_key(*(cell.describe() for cell in self.cells))}.json"
        if not path.exists():
            write_json(path, find(self.observations(FIDELITY_SEED)))
        return dict(json.loads(path.read_text()))

    def _episodes(self, pool: EnvPool, cell: Cell, seeds: list[int], observe: Any = None) -> Iterator[MeteredResult]:
        seats = [MeteredSeat(pool[i], 1) for i in range(min(self.settings.pool_size, len(seeds)))]
        with running(self.loaded.policy, cell):
            self.loaded.policy.reset()
            yield from take_turns(self.loaded, seats, seeds, MeteredSeat.execute, observe, predict_from_pictures)

    def _key(self, cell: Cell, task: str) -> str:
        return comparison_key(self.worlds[task].identity, cell.describe())


_WORDS = "observation.language.tokens"
_TOKENS = (_WORDS, "observation.language.attention_mask")


def _pad(tokens: torch.Tensor, length: int) -> torch.Tensor:
    """Tokens or their mask, `[B, L]`, with zeros up to `length`."""
    return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))


def _summed(results: Sequence[MeteredResult], name: str) -> list[Any]:
    """The sum over episodes of a list of numbers that each has."""
    return [sum(numbers) for numbers in zip(*(getattr(result, name) for result in results), strict=True)]


def _plain(option: Any) -> Any:
    return OmegaConf.to_container(option) if OmegaConf.is_config(option) else option
