"""What a launcher is, and what it is given."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol


class Part(Protocol):
    """Some episodes of one cell. Can be pickled, and is a frozen dataclass, so that a part of a part can be made."""

    key: str
    seeds: tuple[int, ...]


class Player(Protocol):
    """Plays parts. Made once per worker, since loading a policy and its worlds takes seconds."""

    def play(self, part: Any, /) -> Iterator[Any]:
        """Yield each episode, which tells its `seed`, as it ends."""


Make = Callable[[], Player]
Results = Iterator[tuple[str, Any]]


class Launcher(Protocol):
    """Has parts played."""

    def run(self, make_player: Make, parts: Sequence[Part]) -> Results:
        """Yield the key and the episode of everything that is finished, as soon as it is.

        Args:
            make_player: Called where the work is done; can be pickled.
            parts: What to play, in this order where there is one worker.

        Raises:
            RuntimeError: A player raised an error, or workers died; what was yielded before is finished.
        """
