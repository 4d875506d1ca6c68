"""Several workers play the episodes of many cells, one thread each. Every finished episode goes straight to the log.

A unit of work is one cell and some seeds. An episode depends on its seed alone (see `eval.play.rollout`), so its worker
and its neighbours in the batch do not matter. `eval.play.launchers` starts the workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import batched
from typing import Any

from tqdm import tqdm

import bac
from eval.play.launchers import launcher_named
from eval.play.pictures import predictor
from eval.play.realtime import Pace, hold_of, play_realtime
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, EpisodeResult, play
from eval.setup.cells import Cell, running
from eval.setup.keys import comparison_key
from eval.setup.settings import Settings


@dataclass(frozen=True)
class Unit:
    """One cell, the Denoising to put on the policy, and the seeds to play.

    While a chunk is computed, the robot stands still for `think_steps` control steps, or behaves as `pace` says.
    """

    key: str
    cell: Cell
    denoising: bac.Denoising
    seeds: tuple[int, ...]
    think_steps: int = 0
    pace: Pace | None = None


class UnitPlayer:
    """Plays units with one policy and one pool of environments."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded = settings.load_policy()
        self._pool = EnvPool(settings.make_env)

    def play(self, unit: Unit) -> Iterator[EpisodeResult]:
        """Yield each episode of the unit as it ends."""
        hold = hold_of(self._settings.env) if unit.think_steps or unit.pace else None
        options: dict[str, Any] = {"pool_size": self._settings.pool_size, "hold": hold}
        with running(self._loaded.policy, unit.cell, unit.denoising):
            if unit.pace is not None:
                yield from play_realtime(self._loaded, self._pool, unit.seeds, unit.pace, **options)
            else:
                options |= {"think_steps": unit.think_steps, "predict": predictor(self._loaded)}
                yield from play(self._loaded, self._pool, unit.seeds, **options)


def unit_key(settings: Settings, cell: Cell, denoising: bac.Denoising, think_steps: int = 0) -> str:
    """Key of everything an episode depends on besides its seed."""
    return comparison_key(
        settings.identity, cell.describe(), {"updates": updates_of(denoising), "think_steps": think_steps}
    )


def updates_of(denoising: bac.Denoising) -> dict[str, list[int]] | None:
    """Update steps of every block, as plain JSON types; None if every block updates at every step."""
    schedule = denoising.schedule
    return None if schedule is None else {name: list(steps) for name, steps in schedule.update_steps.items()}


def missing(unit: Unit, log: EpisodeLog) -> Unit:
    """The unit without the seeds that are in the log."""
    done = log.episodes(unit.key)
    return replace(unit, seeds=tuple(seed for seed in unit.seeds if seed not in done))


def play_units(
    settings: Settings,
    units: Sequence[Unit],
    log: EpisodeLog,
    *,
    shortest_first: bool = False,
    title: str = "episodes",
) -> None:
    """Play the missing episodes by `settings.launcher` with `settings.workers` workers.

    The bar shows the share of the work, not of the episodes: an episode of 100 steps a chunk takes far longer than one
    of 4.

    Args:
        settings: Settings of the comparison.
        units: The units.
        log: Where finished episodes are, and go.
        shortest_first: Begin with the cheapest cells, so that something is seen soon. By default the longest come
            first, which keeps all workers busy to the end.
        title: Title of the progress bar.

    Raises:
        RuntimeError: A worker failed or died. Its finished episodes are in the log; run the command again.
    """
    launcher = launcher_named(settings.launcher, workers=settings.workers, address=settings.launcher_address)
    todo = [missing(unit, log) for unit in units]
    parts = [replace(unit, seeds=seeds) for unit in todo for seeds in batched(unit.seeds, settings.pool_size)]
    parts.sort(key=lambda unit: _work(unit) * len(unit.seeds), reverse=not shortest_first)
    work = {unit.key: _work(unit) for unit in units}
    episodes = sum(len(unit.seeds) for unit in units)
    done = episodes - sum(len(unit.seeds) for unit in parts)
    began = sum(work[unit.key] * (len(unit.seeds) - len(left.seeds)) for unit, left in zip(units, todo, strict=True))
    total = sum(work[unit.key] * len(unit.seeds) for unit in units)
    with tqdm(total=total, initial=began, desc=title, disable=not settings.progress, bar_format=_BAR) as bar:
        bar.set_postfix_str(f"{done}/{episodes} episodes")
        for key, result in launcher.run(partial(UnitPlayer, settings), parts):
            log.add(key, result)
            done += 1
            bar.set_postfix_str(f"{done}/{episodes} episodes", refresh=False)
            bar.update(work[key])


_BAR = "{desc}: {percentage:3.0f}%|{bar}|{postfix} [{elapsed}]"  # no time left: the first episodes come in lumps
_WORLD = 10.0  # work of the world in an episode, in sweeps of each of its chunks


def _work(unit: Unit) -> float:
    """Work of an episode, in sweeps of each of its chunks."""
    return (unit.denoising.sweeps or unit.cell.steps) + _WORLD
