"""The shifts that a drift guard sees, and its false alarms.

The dense policy visits worlds with a fast solver. The cached policy's error at every reused cell (a block at a step) is
computed once per observation. Then a guard's own arithmetic (`bac.guarding.monitor`) walks many random streams of these
observations, chunk by chunk and episode after episode, just as a guarded policy does online.

A guard should not see a shift that the schedule survives. So each shift also reports how far the cached policy's
actions are from the dense policy's on the same noise.
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
    """One kind of observations, and a guard's response to them.

    Attributes:
        name: Difference to the observations of calibration.
        n: Number of observations.
        above: Share of errors that are above the limit of their reused cell.
        alarmed: Share of streams with an alarm.
        chunks_to_alarm: Median number of chunks until the first alarm, over streams with one; None if there is none.
        alarms_per_chunk: Alarms per chunk over all streams; for held-out observations, the false-alarm rate.
        action_error: Action error of the cached policy against the dense one, RMS in normalised units.
    """

    name: str
    n: int
    above: float
    alarmed: float
    chunks_to_alarm: float | None
    alarms_per_chunk: float
    action_error: float


class GuardExperiment:
    """Calibrates one guard and measures its response to shifts.

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
        """Yield the result of held-out observations, then of every shift."""
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
            name: Difference to the observations of calibration.
            observations: Observations of the shift.
            errors: Errors of the cached policy; None computes them.
            guard: Guard to use; None takes the experiment's.
            loaded: Policy to use; None takes the experiment's.
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
        """Visit observations in worlds whose seeds were not used yet."""
        seeds = range(self._next_seed, self._next_seed + count.episodes)
        self._next_seed += count.episodes
        return visit(loaded or self.loaded, make_env, seeds, count.rows)

    def measure(self, observations: Observations, loaded: Any = None) -> Measured:
        """Measure the cached policy's errors at every watched reused cell."""
        batches, watched = in_parts(observations.batch, self.config.batch_size), self.config.num_watched
        with running((loaded or self.loaded).policy, self.cell.sampler) as policy:
            return measure_errors(policy, self.denoising, batches, num_watched=watched, progress=False)

    def _other_phase(self, held_out: Observations, errors: Mapping[BlockStep, Errors]) -> Shift:
        """The second half of episodes, under a guard that was calibrated on the first half."""
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
        """Action error of the cached policy against the dense one on the same noise, on some of the observations."""
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
