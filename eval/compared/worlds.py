"""Where the pairs of a certificate are played: in the worlds of one task, or of all tasks of a policy in turn."""

from collections.abc import Sequence
from typing import Any, Protocol

import bac
from eval.compared.many_tasks import ManyTasks
from eval.play.records import EpisodeLog
from eval.play.rollout import EpisodeResult
from eval.play.workers import Unit, UnitPlayer, missing, unit_key
from eval.setup.cells import Cell
from eval.setup.settings import Settings

LOG = "certify.jsonl"


class Worlds(Protocol):
    """Worlds that are numbered from 0 on.

    Attributes:
        task: What the certificate calls them.
        columns: Names of what `place` returns.
        turn: Worlds in which every task has had its turn.
    """

    task: str
    columns: tuple[str, ...]
    turn: int

    def place(self, number: int) -> tuple[Any, ...]:
        """What tells the world of a number: its task, if there are several, and its seed."""

    def play(self, cell: Cell, denoising: bac.Denoising, numbers: Sequence[int]) -> list[EpisodeResult]:
        """The episodes of one way in the worlds of these numbers. They are kept on disk."""


class OneTask:
    """The worlds of the seeds `first_seed` and up.

    Args:
        settings: Policy and task.
        first_seed: Seed of world 0.
    """

    columns = ("seed",)
    turn = 1

    def __init__(self, settings: Settings, first_seed: int) -> None:
        self.task = settings.task
        self._settings, self._first = settings, first_seed
        self._log = EpisodeLog(settings.folder / LOG)
        self._player = UnitPlayer(settings)

    def place(self, number: int) -> tuple[Any, ...]:
        """See `Worlds`."""
        return (self._first + number,)

    def play(self, cell: Cell, denoising: bac.Denoising, numbers: Sequence[int]) -> list[EpisodeResult]:
        """See `Worlds`."""
        seeds = tuple(self._first + number for number in numbers)
        unit = Unit(unit_key(self._settings, cell, denoising), cell, denoising, seeds)
        for result in self._player.play(missing(unit, self._log)):
            self._log.add(unit.key, result)
        episodes = self._log.episodes(unit.key)
        return [episodes[seed] for seed in seeds]


class AllTasks:
    """The worlds of all tasks in turn: those of seed `first_seed`, then those of the next seed.

    Args:
        many: Policy and tasks.
        first_seed: Seed of the first world of every task.
    """

    columns = ("task", "seed")

    def __init__(self, many: ManyTasks, first_seed: int) -> None:
        self.task = f"{many.settings.env}, {len(many.worlds)} tasks"
        self._many, self._first, self._tasks = many, first_seed, list(many.worlds)
        self.turn = len(self._tasks)

    def place(self, number: int) -> tuple[Any, ...]:
        """See `Worlds`."""
        turn, task = divmod(number, len(self._tasks))
        return self._tasks[task], self._first + turn

    def play(self, cell: Cell, denoising: bac.Denoising, numbers: Sequence[int]) -> list[EpisodeResult]:
        """See `Worlds`. `cell` holds `denoising`, or is the policy itself."""
        places = [self.place(number) for number in numbers]
        played = {
            task: self._many.episodes(cell, task, [seed for name, seed in places if name == task])
            for task in dict.fromkeys(task for task, _ in places)
        }
        return [played[task][seed] for task, seed in places]
