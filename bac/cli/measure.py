"""Measures the latency of action chunks, and runs policies in environments to calibrate, survey or tune them."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

import bac
from bac.caching.interceptors.patch import Interceptor, put_on, take_off
from bac.cli import lerobot
from bac.cli.checkpoint import Checkpoint
from bac.control import Jerk, jerk_of_switches
from bac.denoising import Denoising
from bac.errors import BacError
from bac.guarding.calibration import Measured, surveying
from bac.plan.plan import bytes_of
from bac.plan.replay import Replay, replay_named
from bac.tuning import Tuned
from bac.tuning.batches import num_rows
from bac.tuning.bench import calling
from bac.tuning.timing import Call, in_turns

PLAYED = "observations: {runs}, spread over whole episodes in {worlds} worlds of {env}; the untouched policy plays"
_JERK_CHUNKS = 8
_COLD = 2  # a shape is recorded at its second chunk


def report(
    policy: nn.Module, denoising: Denoising, batch: Mapping[str, Any], *, executors: Sequence[str], rounds: int
) -> Iterator[str]:
    """Time a policy as it is and under a file, in turns, so that other load on the machine affects both alike.

    Then measure the jerk of both.

    Args:
        denoising: The way to denoise in the file.
        batch: One observation batch, preprocessed.
        executors: Names as `bac.plan.replay.replay_named` takes them.
        rounds: Chunks to time of each kind.
    """
    device = next(policy.parameters()).device
    yield f"{device}, {torch.get_num_threads()} threads, {rounds} chunks each, torch {torch.__version__}"
    yield f"bac.json: {denoising.name}"
    ways: dict[str, tuple[Denoising | None, bool | Replay]] = {"dense": (None, False)}
    for executor in executors:
        replay = bool(replay_named(executor))  # a wish: a file that cannot be replayed is timed all the same
        if replay:
            ways[f"dense, {executor}"] = Denoising(), replay
        ways[f"bac.json, {executor}"] = denoising, replay
    contexts = {name: partial(calling, policy, way, batch, replay) for name, (way, replay) in ways.items()}
    starts = {name: _cold(policy, context) for name, context in contexts.items()}
    samples = {name: [s.wall_s for s in taken] for name, taken in in_turns(contexts, rounds, turns=4).items()}
    dense = float(np.median(samples["dense"]))
    for name, values in samples.items():
        median, late, latest = (1e3 * float(np.percentile(values, q)) for q in (50, 95, 99))
        latencies = f"p50 {median:9.2f} ms   p95 {late:9.2f} ms   p99 {latest:9.2f} ms   {1e3 / median:7.1f} Hz"
        yield f"{name:20} {latencies}   {dense * 1e3 / median:6.2f}x of dense eager"
    weights = sum(parameter.numel() * parameter.element_size() for parameter in policy.parameters())
    yield f"memory: weights {weights / 1e6:.1f} MB, and plans; cold start: the first {_COLD} chunks, recording included"
    for name, (seconds, num_bytes) in starts.items():
        yield f"{name:20} cold start {seconds:7.2f} s   {num_bytes / 1e6:9.1f} MB of plans"
    for name, way in (("dense", None), ("bac.json", denoising)):
        with calling(policy, way, batch, False) as predict:
            yield f"{name:20} jerk {_jerk(predict)}   [normalised action per control step^3]"


def _cold(policy: nn.Module, context: Callable[[], AbstractContextManager[Call]]) -> tuple[float, int]:
    """Time of the first chunks until all is recorded [s], and the memory of the plans then [B]."""
    with context() as predict, torch.no_grad():
        started = time.perf_counter()
        for _ in range(_COLD):
            predict()
        seconds = time.perf_counter() - started
        return seconds, bytes_of(bac.describe(policy).plans)


def _jerk(predict: Callable[[], Any]) -> Jerk:
    """Jerk of a robot that leaves each chunk for another of the same observation, in its middle: only noise differs."""
    chunks = []
    with torch.random.fork_rng(), torch.no_grad():
        for seed in range(_JERK_CHUNKS):
            torch.manual_seed(seed)
            chunks.append(predict().float().cpu().numpy())
    return jerk_of_switches(np.stack(chunks, axis=1))


def survey_in(
    checkpoint: Checkpoint,
    denoising: Denoising,
    env: str,
    options: Mapping[str, Any],
    *,
    runs: int,
    num_worlds: int,
    every: int,
    num_watched: int | None,
    seed: int,
) -> Measured:
    """Play whole episodes with the cached policy until `runs` denoising runs were probed.

    Args:
        env: LeRobot's type of environment.
        options: Settings of the environment, as LeRobot's configuration takes them; the task too, if it has several.
        num_worlds: Number of worlds side by side; each counts as a run of its own.
        every: One chunk in this many is probed.
        num_watched: Number of reused blocks at steps to watch, chosen at random; None for all.
    """
    with surveying(checkpoint.policy, denoising, seed=seed, num_watched=num_watched, every=every) as survey:
        _play_until(survey, runs, checkpoint, env, options, num_worlds, seed)
    return survey.measured()


def observations_in(
    checkpoint: Checkpoint, env: str, options: Mapping[str, Any], *, runs: int, num_worlds: int, seed: int
) -> list[dict[str, Any]]:
    """Play whole episodes with the untouched policy, and keep observations of its chunks, spread over the episodes.

    An episode is played to its end even if enough was seen before: beginnings alone would not stand for it.

    Args:
        runs: Observations to keep; the other arguments are as for `survey_in`.

    Returns:
        Batches of `num_worlds` observations.
    """
    with _seeing(checkpoint.policy) as seen:
        _play_until(seen, runs, checkpoint, env, options, num_worlds, seed)
    return seen.spread(runs, num_worlds)


class _Seen(Interceptor):
    """Intercepts a policy's ``predict_action_chunk`` and keeps its observations."""

    def __init__(self, policy: Any) -> None:
        self.batches: list[dict[str, Any]] = []
        self.num_runs = self.num_chunks = 0
        self._policy = policy

    def __call__(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        queues = getattr(self._policy, "_queues", {})  # LeRobot's policies keep their observation windows here
        self.batches.append(
            {
                name: torch.stack(list(queues[name]), dim=1) if queues.get(name) else value
                for name, value in batch.items()
                if not name.startswith("action")
            }
        )
        self.num_chunks += 1
        self.num_runs += num_rows(batch)
        return self.original(batch, *args, **kwargs)

    def spread(self, runs: int, num_worlds: int) -> list[dict[str, Any]]:
        """Batches with `runs` observations in all, spread evenly over what was seen."""
        wanted = -(-runs // num_worlds)
        return [self.batches[index * len(self.batches) // wanted] for index in range(wanted)]


@contextmanager
def _seeing(policy: Any) -> Iterator[_Seen]:
    """Within the context, the observations of a policy are kept."""
    seen = _Seen(policy)
    put_on(policy, "predict_action_chunk", seen)
    try:
        yield seen
    finally:
        take_off(policy, "predict_action_chunk")


def pictured(tuned: Tuned, path: Path) -> str:
    """Draw error against latency; without matplotlib, say how to get the picture."""
    if importlib.util.find_spec("matplotlib") is None:
        return f"no picture of error against latency: pip install matplotlib for {path.name}"
    tuned.plot(path)
    return f"error against latency: {path}"


class _Observer(Protocol):
    """Counts calls of a policy's sampler, and the denoising runs that it measured."""

    num_chunks: int
    num_runs: int


def _play_until(
    observer: _Observer,
    runs: int,
    checkpoint: Checkpoint,
    env: str,
    options: Mapping[str, Any],
    num_worlds: int,
    seed: int,
) -> None:
    """Play one episode after the other, each on new seeds, until `observer` has measured `runs` denoising runs."""
    play = lerobot.named("rollout")
    worlds, steps = worlds_of(env, options, num_worlds, checkpoint.config)
    processors = (*steps, checkpoint.preprocessor, checkpoint.postprocessor)
    torch.manual_seed(seed)
    episode = 0
    try:
        while observer.num_runs < runs:
            seen, first = observer.num_chunks, seed + episode * num_worlds
            seeds = list(range(first, first + num_worlds))
            with torch.no_grad(), naming_what_is_missing(env, checkpoint.config):
                play(worlds[episode % len(worlds)], checkpoint.policy, *processors, seeds=seeds)
            episode += 1
            if observer.num_chunks == seen:  # otherwise the loop would never end
                raise BacError(
                    f"{env}: an episode ended before {type(checkpoint.policy).__name__} predicted an action chunk; "
                    "give --dataset instead of --env"
                )
    finally:
        for world in worlds:
            world.close()


def worlds_of(env: str, options: Mapping[str, Any], num_worlds: int, config: Any) -> tuple[list[Any], Sequence[Any]]:
    """Make LeRobot's worlds, and the processors between them and the policy's own.

    Raises:
        BacError: LeRobot knows no such environment or option, or the simulator is not installed.
    """
    make_config, make, make_steps = map(lerobot.named, ("make_env_config", "make_env", "make_env_pre_post_processors"))
    try:
        settings = make_config(env, **options)
        suites = make(settings, n_envs=num_worlds)
    except ImportError as error:
        extra = "" if env.startswith("bac_") else f": pip install 'lerobot[{env}]'"  # the worlds of this repository
        raise BacError(f"--env {env}: {error}; install its simulator{extra}") from error
    except (TypeError, ValueError) as error:
        raise BacError(f"--env {env}, --env-option {dict(options)}: LeRobot refuses them: {error}") from error
    worlds = [world for group in suites.values() for world in group.values()]
    return worlds, make_steps(settings, config)


_MISSING = "are missing from", "has none"  # what errors of policies say of an observation without a picture


@contextmanager
def naming_what_is_missing(env: str, config: Any) -> Iterator[None]:
    """Turn the error of a policy whose observation the environment does not give into a sentence."""
    try:
        yield
    except (KeyError, ValueError) as error:
        told = str(error.args[0]) if error.args else ""
        missing = max((name for name in config.input_features if name in told), key=len, default=None)
        is_it = missing == told if isinstance(error, KeyError) else any(word in told for word in _MISSING)
        if missing is None or not is_it:
            raise
        raise BacError(
            f"--env {env}: gives no {missing}, which the policy takes; choose its observations with "
            "--env-option (Push-T: --env-option obs_type=environment_state_agent_pos; the worlds bac_*: --env-option "
            "pixels=96, and wrist=true), or give --dataset where the command takes one"
        ) from error
