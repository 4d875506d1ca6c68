"""Plays paired episodes in LeRobot's environments: one way to denoise after the other, on the same worlds and noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bac.certificate import CERTIFICATE_NAME, WEIGHTS_NAME, Certificate, file_hash
from bac.cli import lerobot
from bac.cli.checkpoint import Checkpoint
from bac.cli.measure import naming_what_is_missing, worlds_of
from bac.denoising import Denoising
from bac.errors import BacError
from bac.plan.replay import Replay
from bac.tuning.bench import running
from bac.tuning.closed_loop import Decision, Play

QUANTITIES = ("success", "score")
FIRST_SEED = 2_000_000  # of the worlds that decide; nothing else in `bac` begins near it
COMPARED_FROM = 10_000_000  # of those that compare: what was chosen in others
_COUNTER = "init_state_id"


@dataclass(frozen=True)
class Player:
    """Plays one episode for each seed; see `bac.tuning.closed_loop.Play`.

    Attributes:
        play: What plays.
        turn: Episodes in which every task has had its turn; 1 where there is one task.
    """

    play: Play
    turn: int = 1

    def __call__(self, way: Denoising, seeds: Sequence[int]) -> Sequence[float]:
        """Results in [0, 1], in the order of the seeds."""
        return self.play(way, seeds)


@contextmanager
def playing(
    checkpoint: Checkpoint,
    env: str,
    options: Mapping[str, Any],
    *,
    num_worlds: int,
    quantity: str,
    replay: bool | Replay,
    first_seed: int = FIRST_SEED,
    num_episodes: int | None = None,
) -> Iterator[Player]:
    """Within the context, yield what plays one episode for each seed, `num_worlds` at most at once.

    Groups of `num_worlds` episodes go through the tasks of the environment in turn.

    Args:
        quantity: ``success``, or ``score``: the largest reward of the episode, which must be in [0, 1].
        first_seed: Seed of the first episode of all.
        num_episodes: Every task must get as many of these as the others; None does not ask.

    Raises:
        BacError: The quantity is unknown, LeRobot cannot make the worlds, or tasks would get unequal numbers.
    """
    check_quantity(quantity)
    rollout = lerobot.named("rollout")
    worlds, steps = worlds_of(env, options, num_worlds, checkpoint.config)
    processors = (*steps, checkpoint.preprocessor, checkpoint.postprocessor)

    def play(way: Denoising, seeds: Sequence[int]) -> Sequence[float]:
        padded = [*seeds, *[seeds[0]] * (num_worlds - len(seeds))]  # a batch of worlds has one size
        group = (seeds[0] - first_seed) // num_worlds
        world = worlds[group % len(worlds)]
        _begin_at(world, group // len(worlds) * num_worlds)
        with (
            running(checkpoint.policy, way, replay=replay),
            torch.no_grad(),
            naming_what_is_missing(env, checkpoint.config),
        ):
            torch.manual_seed(seeds[0])
            episodes = rollout(world, checkpoint.policy, *processors, seeds=padded)
        return _results(episodes, quantity)[: len(seeds)]

    try:
        _check_shares(num_episodes, num_worlds, len(worlds))
        yield Player(play, num_worlds * len(worlds) if len(worlds) > 1 else 1)
    finally:
        for world in worlds:
            world.close()


def check_quantity(quantity: str) -> None:
    """Refuse what is no quantity, before anything is loaded."""
    if quantity not in QUANTITIES:
        raise BacError(f"--quantity: must be one of {', '.join(QUANTITIES)}, got {quantity!r}")


def _check_shares(num_episodes: int | None, num_worlds: int, num_tasks: int) -> None:
    whole = num_worlds * num_tasks
    if num_tasks > 1 and num_episodes is not None and num_episodes % whole:
        raise BacError(
            f"--episodes: {num_tasks} tasks in groups of {num_worlds} need a multiple of {whole}, got {num_episodes}; "
            f"type --episodes {max(1, round(num_episodes / whole)) * whole}, or another --batch-size"
        )


def _begin_at(world: Any, first: int) -> None:
    """Set the count of resets by which LIBERO's worlds choose where an episode begins, whatever its seed."""
    worlds = getattr(world, "envs", ())  # none in processes of their own; LIBERO is made in this one
    if worlds and all(one.has_wrapper_attr(_COUNTER) for one in worlds):
        world.set_attr(_COUNTER, [first + index for index in range(world.num_envs)])


def _results(episodes: Mapping[str, Any], quantity: str) -> list[float]:
    """One number for each episode, from its steps up to the one that ended it."""
    done = episodes["done"].int()
    before_end = torch.arange(done.shape[1]) <= done.argmax(dim=1, keepdim=True)
    if quantity == "success":
        return [float(found) for found in (episodes["success"] & before_end).any(dim=1)]
    best = episodes["reward"].masked_fill(~before_end, -torch.inf).amax(dim=1)
    if not bool(((best >= 0) & (best <= 1)).all()):
        raise BacError(
            f"--quantity score: the largest reward of an episode must be in [0, 1], got {float(best.min()):g} to "
            f"{float(best.max()):g}; take --quantity success"
        )
    return [float(reward) for reward in best]


def certificate_of(
    decision: Decision, file: Path, weights: Path, *, task: str, command: str, device: str, first_seed: int = FIRST_SEED
) -> Certificate:
    """What the episodes showed of the choice, for the file that holds it."""
    outcome, (value, low, high) = decision.chosen.outcome, decision.chosen.difference
    return Certificate(
        verdict=outcome.verdict,
        task=task,
        method=decision.chosen.trial.name,
        reference="the policy itself",
        quantity=decision.quantity,
        n=outcome.n,
        difference=value,
        low=low,
        high=high,
        margin=outcome.margin,
        confidence=outcome.confidence,
        first_seed=first_seed,
        schedule_hash=file_hash(file),
        weights_hash=file_hash(weights / WEIGHTS_NAME),
        command=command,
        device=device,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def save_certificate(certificate: Certificate, file: Path) -> Path:
    """Write a certificate beside the file that it is about."""
    path = file.with_name(CERTIFICATE_NAME)
    certificate.save(path)
    return path
