"""Players for launchers that need neither torch nor a simulator, so that a worker that is hired starts at once."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """An episode; its score is a tenth of its seed."""

    seed: int
    score: float


@dataclass(frozen=True)
class Some:
    """Episodes to play."""

    key: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class TidyPlayer:
    """Plays every seed in order."""

    def play(self, part: Some) -> Iterator[Finished]:
        for seed in part.seeds:
            yield Finished(seed, seed / 10)


@dataclass(frozen=True)
class UnluckyPlayer:
    """Its process dies at one seed, as often as there is room for notes of it.

    Attributes:
        seed: At which.
        notes: Folder with one file for each death.
        most: How many deaths there are.
        after_s: How long it lives on, so that what it finished before has left it [s].
    """

    seed: int
    notes: Path = field(repr=False)
    most: int = 1
    after_s: float = 0.0

    def play(self, part: Some) -> Iterator[Finished]:
        for finished in TidyPlayer().play(part):
            if finished.seed == self.seed and len(list(self.notes.iterdir())) < self.most:
                (self.notes / str(os.getpid())).touch()
                time.sleep(self.after_s)
                os._exit(7)
            yield finished


@dataclass(frozen=True)
class EndlessPlayer:
    """Leaves a note that it began, and never ends.

    Attributes:
        notes: Folder with one file for each process.
    """

    notes: Path

    def play(self, part: Some) -> Iterator[Finished]:
        (self.notes / str(os.getpid())).touch()
        while True:
            time.sleep(0.1)
        yield


class BrokenPlayer:
    """Raises."""

    def play(self, part: Some) -> Iterator[Finished]:
        raise ZeroDivisionError("the policy is broken")
        yield


@dataclass(frozen=True)
class Make:
    """Makes the player it is given, where the work is done."""

    player: object

    def __call__(self):
        return self.player
