"""The protocols of a launcher, its parts of work and its players."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol


class Part(Protocol):
    """Some episodes of one cell: a picklable frozen dataclass, so that `dataclasses.replace` makes smaller parts."""

    key: str
    seeds: tuple[int, ...]


class Player(Protocol):
    """Plays parts. Every worker makes one player, since loading a policy and its worlds takes seconds."""

    def play(self, part: Any, /) -> Iterator[Any]:
        """Yield each episode as it ends. An episode has an attribute `seed`."""


Make = Callable[[], Player]
Results = Iterator[tuple[str, Any]]


class Launcher(Protocol):
    """Distributes parts to players."""

    def run(self, make_player: Make, parts: Sequence[Part]) -> Results:
        """Yield the key and the result of every episode as soon as it is finished.

        Args:
            make_player: Makes a player inside a worker; must be picklable.
            parts: Parts to play. A single worker keeps their order.

        Raises:
            RuntimeError: A player raised an error, or workers died. Episodes yielded before are finished.
        """
