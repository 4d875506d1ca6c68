"""How often does a drift guard cry for nothing, which shifts does it see, and what does it cost?

``python -m eval.experiments.guard policy=pusht`` visits worlds with the dense policy on a fast solver, computes the cached policy's
error at every reused cell for each observation, once, and lets the guard's own arithmetic (`bac.guarding.monitor`) walk
many random streams of them: chunk by chunk, episode after episode. What a guarded policy does online is that, one chunk
at a time; its latency is measured on the real thing.

A shift that the schedule survives should not be seen. So each row also says how far the cached policy's actions are
from the dense policy's on the same noise.
"""

import copy
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch

import bac
import envs
import policies
from bac.caching.interceptors.run import DenoisingRun
from bac.guarding.calibration import measure as measure_errors
from bac.guarding.interceptor import GuardInterceptor
from bac.guarding.monitor import Monitor
from bac.caching.block import BlockStep
from bac.guarding.probe import Errors
from eval import latency
from eval.setup.cells import Cell, running
from eval.setup.config import CONFIGS, cell_of, env_options, log_to_terminal
from eval.measure.action_error import action_chunks, action_error
from eval.experiments.guard.report import write
from eval.experiments.methods.methods import VISIT
from eval.play.rollout import Batch, EnvPool, play

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observations:
    """Preprocessed observations in order of time, episode by episode.

    Attributes:
        batch: `[n, To, D]` each.
        episode: Of each, `[n]`.
        phase: How far the episode was, `[n]` in [0, 1].
    """

    batch: Batch
    episode: np.ndarray
    phase: np.ndarray

    def __len__(self) -> int:
        return len(self.episode)


@dataclass(frozen=True)
class Row:
    """One kind of observations.

    Attributes:
        name: What is other than in calibration.
        n: Observations.
        above: Share of all reused cells whose error is above its limit.
        alarmed: Share of streams with an alarm.
        chunks_to_alarm: Median over those; None if there is none.
        alarms_per_chunk: Of all streams; for held-out observations the false-alarm rate.
        action_error: Of the cached policy to the dense one, RMS in normalised units.
    """

    name: str
    n: int
    above: float
    alarmed: float
    chunks_to_alarm: float | None
    alarms_per_chunk: float
    action_error: float


def visit(loaded: Any, make_env: Callable[[], Any], seeds: Sequence[int], rows: int) -> Observations:
    """Up to `rows` observations of each episode, evenly spread, that the policy visits with a fast solver."""
    seen: dict[int, list[Batch]] = {seed: [] for seed in seeds}
    active, done = list(seeds), set()

    def observe(batch: Batch) -> None:
        active[:] = [seed for seed in active if seed not in done]
        for index, seed in enumerate(active):
            seen[seed].append({key: values[index].clone() for key, values in batch.items()})

    pool = EnvPool(make_env)
    try:
        with running(loaded.policy, VISIT, None):
            for result in play(loaded, pool, seeds, pool_size=len(seeds), observe=observe):
                done.add(result.seed)
    finally:
        pool.close()
    kept = [
        (episode, index / max(1, len(seen[seed]) - 1), seen[seed][index])
        for episode, seed in enumerate(seeds)
        for index in spread(len(seen[seed]), rows)
    ]
    batch = {key: torch.stack([observation[key] for _, _, observation in kept]) for key in kept[0][2]}
    return Observations(batch, np.array([e for e, _, _ in kept]), np.array([phase for _, phase, _ in kept]))


def spread(length: int, count: int) -> list[int]:
    """At most `count` of the indices below `length`, evenly spread, the first and last among them."""
    return sorted(set(np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()))


def noisy(observations: Observations, size: float, seed: int = 0) -> Observations:
    """With independent noise of this standard deviation on every number."""
    generator = torch.Generator().manual_seed(seed)
    batch = {k: v + size * torch.randn(v.shape, generator=generator) for k, v in observations.batch.items()}
    return replace(observations, batch=batch)


def dead_sensor(observations: Observations) -> Observations:
    """The world's state reads as the middle of its range."""
    key = "observation.environment_state"
    return replace(observations, batch={**observations.batch, key: torch.zeros_like(observations.batch[key])})


def stream(episode: np.ndarray, chunks: int, generator: np.random.Generator) -> Iterator[int]:
    """Rows in order of time: whole episodes, drawn with replacement, until there are `chunks`."""
    rows = [np.flatnonzero(episode == number) for number in np.unique(episode)]
    while chunks > 0:
        chosen = rows[generator.integers(len(rows))][:chunks]
        chunks -= len(chosen)
        yield from chosen.tolist()


def alarms(guard: bac.Guard, errors: Mapping[BlockStep, Errors], rows: Iterator[int]) -> list[int]:
    """Chunks, counted from 1, at which a guard cries as it walks a stream."""
    monitor, found = Monitor(guard), []
    for chunk, row in enumerate(rows, 1):
        if (cells := monitor.begin()) and monitor.note({cell: errors[cell][row : row + 1] for cell in cells}):
            found.append(chunk)
    return found


class Bench:
    """Measures one guard.

    Args:
        config: ``configs/guard.yaml``.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.cell: Cell = cell_of(config)
        self.loaded = policies.load(policies.CHECKPOINTS.get(config.checkpoint, config.checkpoint))
        self.make_env = partial(envs.make, config.env.name, **env_options(dict(config.env)))
        self.schedule = bac.Schedule.load(config.schedule)
        self._next_seed = config.seed
        self.calibration = self.visit(self.make_env, config.calibration)
        measured = self.measure(self.calibration)
        options = {name: config[name] for name in ("probe_every", "num_cells", "patience")}
        self.guard = measured.guard(self.schedule, **options)
        self._calibration_errors = measured.errors

    def rows(self) -> Iterator[Row]:
        """Held-out observations, then every shift."""
        held_out = self.visit(self.make_env, self.config.held_out)
        errors = self.measure(held_out).errors
        yield self.row("none (held-out episodes)", held_out, errors)
        yield self._other_phase(held_out, errors)
        some = self.visit(self.make_env, self.config.shifted)
        for size in self.config.noise:
            yield self.row(f"observation noise {size:g}", noisy(some, size))
        yield self.row("dead sensor (world's state constant)", dead_sensor(some))
        yield from self._pusht_rows() if self.config.env.name == "pusht" else self._metaworld_rows()

    def row(self, name: str, observations: Observations, errors: Mapping[BlockStep, Errors] | None = None) -> Row:
        """Walk the streams."""
        if errors is None:
            errors = self.measure(observations).errors
        return self._walked(name, self.guard, errors, observations, self._action_error(observations))

    def visit(self, make_env: Callable[[], Any], count: Any, loaded: Any = None) -> Observations:
        """In worlds of seeds that were not yet taken."""
        seeds = range(self._next_seed, self._next_seed + count.episodes)
        self._next_seed += count.episodes
        return visit(loaded or self.loaded, make_env, seeds, count.rows)

    def measure(self, observations: Observations, loaded: Any = None) -> Any:
        """Errors of the cached policy at every reused cell."""
        size, batch = self.config.batch_size, observations.batch
        batches = [
            {key: values[start : start + size] for key, values in batch.items()}
            for start in range(0, len(observations), size)
        ]
        with running((loaded or self.loaded).policy, self.cell.sampler, None) as policy:
            return measure_errors(policy, self.schedule, batches, num_watched=self.config.num_watched, progress=False)

    def cost(self) -> dict[str, Any]:
        """Latency of a chunk that is replayed and of one that is probed, interleaved, and what a guard adds to any.

        What it adds to a chunk that is not probed is microseconds, lost in the noise of medians; so it is timed by
        itself, on a sampler that does nothing.
        """
        one = {key: values[:1] for key, values in self.calibration.batch.items()}
        ways = {"replayed": (None, "replay"), "probed": (replace(self.guard, probe_every=1), "interpret")}
        calls = {}
        for name, (guard, executor) in ways.items():  # a probed chunk is interpreted whatever the executor
            policy = copy.deepcopy(self.loaded.policy)
            policy.diffusion.use_solver(self.cell.solver, self.cell.num_steps)
            bac.wrap(policy, self.schedule, guard=guard, executor=executor)
            calls[name] = partial(policy.predict_action_chunk, one, generator=torch.Generator().manual_seed(0))
        found = latency.measure(calls, rounds=self.config.latency_rounds, warmup=2, progress=False)
        replayed, probed = (found[name].p50_ms for name in ways)
        config = self.loaded.policy.config
        guard_us = overhead_us(self.guard, torch.zeros(1, config.horizon, config.action_feature.shape[0]))
        share = (probed - replayed) / replayed / self.guard.probe_every
        return {
            **{name: asdict(result) for name, result in found.items()},
            "guard_us": guard_us,
            "probe_every": self.guard.probe_every,
            "probed_over_replayed": probed / replayed,
            "mean_cost": share + guard_us / (1e3 * replayed),
        }

    def _other_phase(self, held_out: Observations, errors: Mapping[BlockStep, Errors]) -> Row:
        """A guard that was calibrated on the first half of episodes meets the second."""
        early, late = self.calibration.phase < 0.5, held_out.phase >= 0.5
        guard = bac.Guard.of_errors(self.schedule, {c: e[early] for c, e in self._calibration_errors.items()})
        guard = replace(self.guard, limits=guard.limits, allowed=guard.allowed, num_runs=guard.num_runs)
        batch = {key: values[torch.from_numpy(late)] for key, values in held_out.batch.items()}
        later = Observations(batch, held_out.episode[late], held_out.phase[late])
        name = "second half of episodes, calibrated on the first"
        return self._walked(name, guard, {c: e[late] for c, e in errors.items()}, later, self._action_error(later))

    def _pusht_rows(self) -> Iterator[Row]:
        for scale in self.config.block_scales:
            make_env = partial(scaled_pusht, self.make_env, scale)
            yield self.row(f"T of size {scale} instead of 30", self.visit(make_env, self.config.shifted))

    def _metaworld_rows(self) -> Iterator[Row]:
        other = policies.load(policies.CHECKPOINTS[self.config.other.checkpoint])
        options = {**env_options(dict(self.config.env)), "task": self.config.other.task}
        make_env = partial(envs.make, self.config.env.name, **options)
        theirs = self.visit(make_env, self.config.shifted, other)
        yield self.row("another task's world", self.visit(make_env, self.config.shifted))
        errors, name = self.measure(theirs, other).errors, "another task's policy in its world"
        yield self._walked(name, self.guard, errors, theirs, self._action_error(theirs, other))

    def _walked(
        self,
        name: str,
        guard: bac.Guard,
        errors: Mapping[BlockStep, Errors],
        observations: Observations,
        error: float,
    ) -> Row:
        generator, chunks = np.random.default_rng(0), self.config.stream_chunks
        found = [
            alarms(replace(guard, seed=seed), errors, stream(observations.episode, chunks, generator))
            for seed in range(self.config.num_streams)
        ]
        first = [alarm[0] for alarm in found if alarm]
        row = Row(
            name,
            len(observations),
            float(np.mean([rows > guard.limits[block][step] for (block, step), rows in errors.items()])),
            len(first) / len(found),
            float(np.median(first)) if first else None,
            sum(map(len, found)) / (len(found) * chunks),
            error,
        )
        logger.info("%s", row)
        return row

    def _action_error(self, observations: Observations, loaded: Any = None) -> float:
        policy = (loaded or self.loaded).policy
        rows = spread(len(observations), self.config.num_errors)
        batch = {key: values[rows] for key, values in observations.batch.items()}
        with running(policy, self.cell.sampler, None):
            reference = action_chunks(policy, batch, num_draws=1)
        with running(policy, self.cell, self.schedule):
            return action_error(action_chunks(policy, batch, num_draws=1), reference)


def scaled_pusht(make_env: Callable[[], Any], scale: float) -> Any:
    """Push-T with a T of another size."""
    env = make_env()
    simulator = env.unwrapped._simulator
    simulator.add_tee = partial(simulator.add_tee, scale=scale)
    return env


def overhead_us(guard: bac.Guard, chunk: torch.Tensor, calls: int = 2000) -> float:
    """What a guard adds to a chunk that is not probed [us], median."""
    guarded = GuardInterceptor(Monitor(replace(guard, probe_every=10**9)), DenoisingRun((), 1), 0)
    guarded.original = lambda: chunk
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        guarded()
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


@contextmanager
def one_thread() -> Iterator[None]:
    """As everything here is measured."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="guard")
def main(config: Any) -> None:
    """Measure, print and write the table, and draw it."""
    log_to_terminal()
    with one_thread():
        bench = Bench(config)
        logger.info("%s", bench.guard)
        rows = list(bench.rows())
        cost = bench.cost() if config.latency_rounds else None
    folder = Path(config.results)
    write(folder, config.env.task, bench.guard, [asdict(row) for row in rows], cost)
    print((folder / "table.md").read_text(), json.dumps(cost, indent=1), f"\nWritten to {folder}")


if __name__ == "__main__":
    main()
