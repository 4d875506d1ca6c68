"""A launcher that plays one part after the other in this process: the reference, and the easiest to debug."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.play.launchers.launcher import Make, Part, Results


@dataclass(frozen=True)
class SerialLauncher:
    """Plays all parts with one player in this process."""

    def run(self, make_player: Make, parts: Sequence[Part]) -> Results:
        """See `Launcher`. An error of the player is raised unchanged."""
        if not parts:
            return
        player = make_player()
        for part in parts:
            yield from ((part.key, result) for result in player.play(part))
