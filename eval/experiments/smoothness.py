"""Jerk and success of ways to make consecutive chunks agree: ``python -m eval.experiments.smoothness n=100``.

Every way plays the same worlds in real time, with the same Denoising and, where its noise is not its point, the same
noise. Episodes are resumable and the same on any machine. ``output=FOLDER`` writes the table and the picture.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import batched, product
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf

from bac.control import jerk_of
from eval.experiments.smoothness_report import publish
from eval.measure.bootstrap import bootstrap
from eval.measure.intervals import Estimate, mean_score, paired_success_difference, success_rate
from eval.play.metered import MeteredResult
from eval.play.realtime import Pace, hold_of
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool
from eval.play.smooth import Smoothing, play_smoothly
from eval.setup.cells import Cell, running, stored
from eval.setup.config import CONFIGS, env_options, log_to_terminal
from eval.setup.keys import comparison_key
from eval.setup.settings import Settings

logger = logging.getLogger(__name__)
_SCORE, _SUCCESS, _SQUARES, _COUNTS = 0, 1, slice(2, 4), slice(4, 6)  # columns of an episode's row
_WIDTH = 6


@dataclass(frozen=True)
class Point:
    """One row of the table: a way in a task at a rate."""

    task: str
    control_hz: float
    way: Smoothing
    pace: Pace
    key: str

    def __str__(self) -> str:
        return f"{self.task}, {self.control_hz:g} Hz, {self.way.name}"


class Task:
    """One policy in one world, played in every way at every rate.

    Args:
        options: One of `tasks` of ``configs/smoothness.yaml``.
        config: All of it.
    """

    def __init__(self, options: Any, config: Any) -> None:
        env = OmegaConf.to_container(options.env, resolve=True)
        names = options.checkpoint, env["name"], env["task"]
        self.settings = Settings(*names, env_options(env), pool_size=config.pool_size)
        self.cell: Cell = stored(self.settings.checkpoint / config.file)
        self.points = [
            self._point(Smoothing(**way), rate, options.latency_ms)
            for rate, way in product(config.control_hz, config.ways)
        ]

    def play(self, seeds: Sequence[int], log: EpisodeLog[MeteredResult]) -> None:
        """Play every episode that is not in the log, and all ways of some seeds before the next seeds."""
        loaded, pool = self.settings.load_policy(), EnvPool(self.settings.make_env)
        try:
            for part, point in product(batched(seeds, self.settings.pool_size), self.points):
                if missing := [seed for seed in part if seed not in log.episodes(point.key)]:
                    logger.info(
                        "%s, %g Hz, %s: %d episodes", point.task, point.control_hz, point.way.name, len(missing)
                    )
                    with running(loaded.policy, self.cell):
                        for result in self._episodes(loaded, pool, missing, point):
                            log.add(point.key, result)
        finally:
            pool.close()

    def _episodes(self, loaded: Any, pool: EnvPool, seeds: list[int], point: Point) -> Iterator[MeteredResult]:
        hold, size = hold_of(self.settings.env), self.settings.pool_size
        return play_smoothly(loaded, pool, seeds, point.pace, hold, point.way, pool_size=size)

    def _point(self, way: Smoothing, control_hz: float, latency_ms: float) -> Point:
        pace = Pace.of([latency_ms * way.latency_factor], control_hz)
        decides = {key: value for key, value in asdict(way).items() if key not in ("name", "latency_factor")}
        key = comparison_key(self.settings.identity, self.cell.describe(), decides, asdict(pace))
        return Point(self.settings.task, control_hz, way, pace, key)


def rows_of(task: Task, seeds: Sequence[int], log: EpisodeLog[MeteredResult]) -> list[dict[str, Any]]:
    """The table of one task as plain JSON types; each way is compared with the first at the same rate."""
    rows, first = [], {point.control_hz: point for point in reversed(task.points)}
    for point in task.points:
        before = first[point.control_hz]
        both = [log.episodes(before.key), log.episodes(point.key)]
        played = [seed for seed in seeds if all(seed in episodes for episodes in both)]
        if played:
            columns = [np.array([_columns(episodes[seed]) for seed in played]) for episodes in both]
            rows.append(_row(point, np.hstack(columns), judged_by_score=task.settings.judged_by_score))
    return rows


def _row(point: Point, episodes: np.ndarray, *, judged_by_score: bool) -> dict[str, Any]:
    """One row of the table from `[n, 2 * _WIDTH]`: the columns of the first way, then those of this one."""
    mine = episodes[:, _WIDTH:]
    jerk = jerk_of(mine[:, _SQUARES].sum(0).tolist(), mine[:, _COUNTS].sum(0).tolist())
    success, difference = _by_score(episodes) if judged_by_score else _by_success(episodes)
    numbers = {
        "success": success,
        "difference": difference,
        "jerk_ratio": bootstrap(lambda rows: _jerk(rows[:, _WIDTH:]) / _jerk(rows[:, :_WIDTH]), episodes),
    }
    return {
        "task": point.task,
        "quantity": "score" if judged_by_score else "success",
        "control_hz": point.control_hz,
        "delay_steps": point.pace.lead,
        "way": point.way.name,
        "n": len(episodes),
        **{f"jerk_{name}": value for name, value in asdict(jerk).items()},
        **{name: asdict(estimate) for name, estimate in numbers.items()},
    }


def _by_score(episodes: np.ndarray) -> tuple[Estimate, Estimate]:
    """The mean score, and its paired difference to the first way."""
    scores = episodes[:, [_SCORE, _WIDTH + _SCORE]]
    return mean_score(scores[:, 1]), bootstrap(lambda rows: float((rows[:, 1] - rows[:, 0]).mean()), scores)


def _by_success(episodes: np.ndarray) -> tuple[Estimate, Estimate]:
    """The success rate, and its paired difference; not by bootstrap, which has no width where all pairs agree."""
    before, after = episodes[:, _SUCCESS].astype(bool), episodes[:, _WIDTH + _SUCCESS].astype(bool)
    return success_rate(int(after.sum()), len(after)), paired_success_difference(before, after)


def _columns(result: MeteredResult) -> list[float]:
    return [result.score, float(result.success), *result.squares, *result.counts]


def _jerk(rows: np.ndarray) -> float:
    """Of all actions, pooled over episodes."""
    return float(np.sqrt(rows[:, _SQUARES].sum() / rows[:, _COUNTS].sum()))


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="smoothness")
def main(config: Any) -> None:
    """Play what is missing, print the table, and write it if ``output=`` is set."""
    log_to_terminal()
    torch.set_num_threads(1)
    log = EpisodeLog(Path(config.log), MeteredResult)
    seeds = range(config.first_seed, config.first_seed + config.n)
    tasks = [Task(options, config) for options in config.tasks]
    for part, task in product(batched(seeds, config.pool_size), tasks):
        task.play(part, log)
    publish([row for task in tasks for row in rows_of(task, seeds, log)], config.output)


if __name__ == "__main__":
    main()
