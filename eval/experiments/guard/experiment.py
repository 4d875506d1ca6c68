"""Which shifts does a drift guard see, and how often does it cry for nothing?

Worlds are visited with the dense policy on a fast solver. The cached policy's error at every reused cell is computed
once for each observation; then the guard's own arithmetic (`bac.guarding.monitor`) walks many random streams of them:
chunk by chunk, episode after episode. What a guarded policy does online is that, one chunk at a time.

A shift that the schedule survives should not be seen. So each shift also says how far the cached policy's actions are
from the dense policy's on the same noise.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import bac
import envs
import policies
from bac.caching.block import BlockStep
from bac.guarding.calibration import Measured
from bac.guarding.calibration import measure as measure_errors
from bac.guarding.probe import Errors
from bac.tuning.batches import in_parts
from eval.experiments.guard.observations import Observations, dead_sensor, noisy, visit
from eval.experiments.guard.streams import Streams
from eval.measure.action_error import action_chunks, action_error
from eval.setup.batches import spread
from eval.setup.cells import Cell, running
from eval.setup.config import cell_of, env_options

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shift:
    """One kind of observations, and what a guard made of them.

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


class GuardExperiment:
    """Calibrates one guard and lets it meet shifts.

    Args:
        config: ``configs/guard.yaml``.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.cell: Cell = cell_of(config)
        self.loaded = policies.load(policies.CHECKPOINTS.get(config.checkpoint, config.checkpoint))
        self.make_env = partial(envs.make, config.env.name, **env_options(dict(config.env)))
        self.denoising = bac.load(config.schedule)
        self.streams = Streams(config.num_streams, config.stream_chunks)
        self._next_seed = config.seed
        self.calibration = self.visit(self.make_env, config.calibration)
        measured = self.measure(self.calibration)
        options = {name: config[name] for name in ("probe_every", "num_cells", "patience")}
        self.guard = measured.guard(self.denoising.schedule, **options)
        self._calibration_errors = measured.errors

    def shifts(self) -> Iterator[Shift]:
        """Held-out observations, then every shift."""
        held_out = self.visit(self.make_env, self.config.held_out)
        errors = self.measure(held_out).errors
        yield self.shift("none (held-out episodes)", held_out, errors)
        yield self._other_phase(held_out, errors)
        some = self.visit(self.make_env, self.config.shifted)
        for size in self.config.noise:
            yield self.shift(f"observation noise {size:g}", noisy(some, size))
        yield self.shift("dead sensor (world's state constant)", dead_sensor(some))
        yield from self._pusht_shifts() if self.config.env.name == "pusht" else self._metaworld_shifts()

    def shift(
        self,
        name: str,
        observations: Observations,
        errors: Mapping[BlockStep, Errors] | None = None,
        *,
        guard: bac.Guard | None = None,
        loaded: Any = None,
    ) -> Shift:
        """Let a guard walk streams of these observations.

        Args:
            name: What is other than in calibration.
            observations: What is seen.
            errors: Of the cached policy, where they are known.
            guard: Another than the experiment's.
            loaded: Another policy than the experiment's.
        """
        guard = guard or self.guard
        errors = self.measure(observations, loaded).errors if errors is None else errors
        found = self.streams.walk(guard, errors, observations.episode)
        first = [alarms[0] for alarms in found if alarms]
        shift = Shift(
            name=name,
            n=len(observations),
            above=float(np.mean([rows > guard.limits[block][step] for (block, step), rows in errors.items()])),
            alarmed=len(first) / len(found),
            chunks_to_alarm=float(np.median(first)) if first else None,
            alarms_per_chunk=sum(map(len, found)) / (len(found) * self.streams.num_chunks),
            action_error=self._action_error(observations, loaded or self.loaded),
        )
        logger.info("%s", shift)
        return shift

    def visit(self, make_env: Callable[[], Any], count: Any, loaded: Any = None) -> Observations:
        """In worlds of seeds that were not yet taken."""
        seeds = range(self._next_seed, self._next_seed + count.episodes)
        self._next_seed += count.episodes
        return visit(loaded or self.loaded, make_env, seeds, count.rows)

    def measure(self, observations: Observations, loaded: Any = None) -> Measured:
        """Errors of the cached policy at every reused cell."""
        batches, watched = in_parts(observations.batch, self.config.batch_size), self.config.num_watched
        with running((loaded or self.loaded).policy, self.cell.sampler) as policy:
            return measure_errors(policy, self.denoising, batches, num_watched=watched, progress=False)

    def _other_phase(self, held_out: Observations, errors: Mapping[BlockStep, Errors]) -> Shift:
        """A guard that was calibrated on the first half of episodes meets the second."""
        early, late = self.calibration.phase < 0.5, held_out.phase >= 0.5
        half = {cell: rows[early] for cell, rows in self._calibration_errors.items()}
        found = bac.Guard.of_errors(self.denoising.schedule, half)
        guard = replace(self.guard, limits=found.limits, allowed=found.allowed, num_runs=found.num_runs)
        name = "second half of episodes, calibrated on the first"
        return self.shift(name, held_out.where(late), {c: rows[late] for c, rows in errors.items()}, guard=guard)

    def _pusht_shifts(self) -> Iterator[Shift]:
        for scale in self.config.block_scales:
            make_env = partial(scaled_pusht, self.make_env, scale)
            yield self.shift(f"T of size {scale} instead of 30", self.visit(make_env, self.config.shifted))

    def _metaworld_shifts(self) -> Iterator[Shift]:
        other = policies.load(policies.CHECKPOINTS[self.config.other.checkpoint])
        options = {**env_options(dict(self.config.env)), "task": self.config.other.task}
        make_env = partial(envs.make, self.config.env.name, **options)
        theirs = self.visit(make_env, self.config.shifted, other)
        yield self.shift("another task's world", self.visit(make_env, self.config.shifted))
        yield self.shift("another task's policy in its world", theirs, loaded=other)

    def _action_error(self, observations: Observations, loaded: Any) -> float:
        """Of the cached policy to the dense one on the same noise, on some of the observations."""
        batch = spread(observations.batch, min(self.config.num_errors, len(observations)))
        with running(loaded.policy, self.cell.sampler) as policy:
            reference = action_chunks(policy, batch, num_draws=1)
        with running(loaded.policy, self.cell.sampler, self.denoising) as policy:
            return action_error(action_chunks(policy, batch, num_draws=1), reference)


def scaled_pusht(make_env: Callable[[], Any], scale: float) -> Any:
    """Push-T with a T of another size."""
    env = make_env()
    simulator = env.unwrapped._simulator
    simulator.add_tee = partial(simulator.add_tee, scale=scale)
    return env
