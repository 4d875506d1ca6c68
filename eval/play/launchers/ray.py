"""A launcher with Ray's actors, one player each, on this machine or on the machines of a cluster.

Episodes are streamed: each reaches this process, and so the log, as it ends. When an actor or its machine dies, its
finished episodes are already here. Another actor takes its place and plays the missing seeds.
"""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.play.launchers.launcher import Make, Part, Results

ROOT = Path(__file__).parents[3]
MOST_DEATHS = 3  # of workers while they play the same part: after that, the part itself must be at fault
_INSTALL = "launcher=ray: Ray is not installed. Type: pip install '.[ray]', or take launcher=local"


@dataclass(frozen=True)
class RayLauncher:
    """Attributes:
    workers: Number of actors, each with one core of the cluster.
    address: Address for `ray.init`: ``auto`` or ``host:port`` of a running cluster. None uses the cluster that this
        process is connected to, or starts one on this machine.
    """

    workers: int
    address: str | None = None

    def run(self, make_player: Make, parts: Sequence[Part]) -> Results:
        """See `Launcher`. Workers that die are replaced, up to `MOST_DEATHS` times for each part.

        Raises:
            ModuleNotFoundError: Ray is not installed.
        """
        ray = _ray()
        if not parts:
            return
        mine = not ray.is_initialized()
        if mine:
            own = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
            ray.init(self.address, log_to_driver=False, logging_level="error", **own)
        crew = _Crew(ray, make_player, parts)
        try:
            yield from crew.work(min(self.workers, len(parts)))
        finally:
            crew.dismiss()
            if mine:
                ray.shutdown()


@dataclass(frozen=True)
class _Job:
    """A part, and the number of workers that died while they played it."""

    part: Any
    deaths: int = 0

    def without(self, finished: set[int]) -> "_Job":
        """The job that is left after a worker's death."""
        seeds = tuple(seed for seed in self.part.seeds if seed not in finished)
        return _Job(replace(self.part, seeds=seeds), self.deaths + 1)


class _Crew:
    """The actors at work. For every stream of episodes: its actor, its job, and the seeds finished so far."""

    def __init__(self, ray: Any, make_player: Make, parts: Sequence[Part]) -> None:
        self._ray, self._make_player = ray, make_player
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self._jobs = deque(_Job(part) for part in parts)
        self._streams: dict[Any, tuple[Any, _Job, set[int]]] = {}

    def work(self, size: int) -> Results:
        """Keep `size` actors busy until all jobs are done."""
        for _ in range(size):
            self._begin()
        while self._streams:
            ready, _ = self._ray.wait(list(self._streams), num_returns=1)
            yield from self._advance(ready[0])

    def dismiss(self) -> None:
        """End the actors that are still at work."""
        for actor, _, _ in self._streams.values():
            self._ray.kill(actor)
        self._streams.clear()

    def _begin(self, actor: Any = None) -> None:
        """Give the next job to the actor, or to a new one. Without a job, end the actor."""
        if self._jobs:
            job = self._jobs.popleft()
            actor = actor or self._actor.remote(self._make_player, str(ROOT))
            self._streams[actor.play.remote(job.part)] = (actor, job, set())
        elif actor is not None:
            self._ray.kill(actor)

    def _advance(self, stream: Any) -> Results:
        """Take one episode from a stream, or handle its end."""
        actor, job, finished = self._streams[stream]
        errors = self._ray.exceptions
        try:
            result = self._ray.get(next(stream))
        except StopIteration:
            del self._streams[stream]
            self._begin(actor)
        except errors.RayActorError as death:
            del self._streams[stream]
            self._replace(job.without(finished), death)
        except errors.RayTaskError as error:
            raise RuntimeError(f"a worker failed; run again to go on:\n{error}") from error
        else:
            finished.add(result.seed)
            yield job.part.key, result

    def _replace(self, job: _Job, death: Exception) -> None:
        if job.deaths >= MOST_DEATHS:
            raise RuntimeError(f"{job.deaths} workers died of the same part; run again to go on:\n{death}") from death
        if job.part.seeds:
            self._jobs.appendleft(job)
        self._begin()


class _Worker:
    """The actor's class: holds one player on the machine that Ray chooses."""

    def __init__(self, make_player: Make, root: str) -> None:
        if not Path(root).is_dir():
            raise FileNotFoundError(f"{root}: not on this machine; the checkout must lie at one path on all of them")
        os.chdir(root)
        self._player = make_player()

    def play(self, part: Any) -> Any:
        yield from self._player.play(part)


def _ray() -> Any:
    # Switches off Ray's usage statistics, and its warning that a future version will leave GPUs visible.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_INSTALL) from error
    return ray
