"""What `bac compare` compares: the policy itself, what files hold, and its rivals. And a clock for a chunk of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import typer

from bac.adapters.host import Host
from bac.cli.checkpoint import Checkpoint
from bac.denoising import Denoising, load
from bac.errors import ScheduleError
from bac.plan.replay import Replay
from bac.tuning.bench import Quantiles, calling, quantiles
from bac.tuning.rivals import USUAL, as_fast, as_many, rivals
from bac.tuning.standings import ITSELF, Contender
from bac.tuning.timing import in_turns

_TURNS = 4  # of timing, so that load that drifts meets every way


@dataclass(frozen=True)
class Ways:
    """What is compared, by name: the policy itself, what was made for it, smaller numbers of its own steps."""

    own: int | None
    files: Mapping[str, Denoising]
    fewer: Mapping[str, Denoising]

    @property
    def by_name(self) -> dict[str, Denoising]:
        """All of them, the policy itself first."""
        return {ITSELF: Denoising(), **self.files, **self.fewer}

    def contender(self, name: str, latency: Quantiles, results: tuple[float, ...]) -> Contender:
        """One of them, with what was measured of it."""
        way = self.by_name[name]
        solver = "own solver" if way.solver is None else way.solver.name
        evaluations, rivals = way.num_evaluations or self.own, name in self.fewer
        return Contender(name, evaluations, solver if rivals else "", as_many(way), latency, results)


@dataclass(frozen=True)
class Clock:
    """Times a chunk of several ways, in turns, on a random observation at batch 1; None is the policy by PyTorch."""

    loaded: Checkpoint
    replay: bool | Replay
    rounds: int = 4
    progress: bool = False

    def __call__(self, ways: Mapping[str, Denoising | None]) -> dict[str, Quantiles]:
        batch, policy = self.loaded.random_observation(1), self.loaded.policy
        contexts = {
            name: partial(calling, policy, way, batch, self.replay if way is not None else False)
            for name, way in ways.items()
        }
        samples = in_turns(contexts, self.rounds, turns=min(_TURNS, self.rounds // 2), progress=self.progress)
        return {name: quantiles(taken) for name, taken in samples.items()}


def ways_to_compare(
    host: Host, files: Mapping[str, Denoising], steps: Sequence[int], matching: Iterable[int] | None
) -> Ways:
    """What is to be compared.

    Args:
        host: The policy.
        files: What was made for it.
        steps: Numbers of own steps that were asked for; `USUAL` if none was.
        matching: Numbers that match the files' ways; None compares with no own steps at all.

    Raises:
        ScheduleError: There is nothing to compare the policy with, or a number is not smaller than its own.
    """
    own = host.num_steps
    if own is not None and (many := [count for count in steps if count >= own]):
        raise ScheduleError(f"--steps: must be fewer than the policy's own {own}, got {many[0]}")
    fewer: dict[str, Denoising] = {}
    try:
        if matching is not None:
            fewer = rivals(host, [*(steps or USUAL), *matching])
    except ScheduleError as error:
        if steps or not files:
            raise
        typer.echo(f"no rivals: {error}")
    if not files and not fewer:
        raise ScheduleError(
            "there is nothing to compare the policy with: name a file, --file, or --steps that are fewer than its own"
        )
    return Ways(own, files, fewer)


def matching_steps(host: Host, files: Mapping[str, Denoising], clock: Clock) -> set[int]:
    """Numbers of own steps that compute as much as the files' ways, and those that take as long.

    Whoever reuses blocks computes less than it takes, so the second is the larger one.
    """
    counts = {count for count in map(as_many, files.values()) if count}
    own, few = host.num_steps, (host.num_steps or 0) // 4
    if not (files and own is not None and few and (host.takes_fewer_steps or host.takes_solvers)):
        return counts
    (name, way), *_ = rivals(host, [few]).items()
    times = clock({ITSELF: Denoising(), name: way, **files})
    line = (own, times[ITSELF].p50_s), (few, times[name].p50_s)
    return counts | {as_fast(times[file].p50_s, *line) for file in files}


def ways_in_files(given: Sequence[Path], policy_path: Path) -> dict[str, Denoising]:
    """The ways in files, by name; if none is given, in the one beside the policy, if there is one."""
    own = policy_path / "bac.json"
    paths = list(dict.fromkeys(given)) or ([own] if own.is_file() else [])
    ways = {path: load(path) for path in paths}
    for path, way in ways.items():
        if way.measured is not None and way.measured.warning:
            typer.echo(f"WARNING: {path}: {way.measured.warning}")
    short = len({path.name for path in paths}) == len(ways)
    # What was measured is left out, or the warning would be logged whenever the way is put on.
    return {f"{path.name if short else path}: {way.name}": replace(way, measured=None) for path, way in ways.items()}
