"""All in this process, one part after the other: the reference, and the easiest to debug."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.play.launchers.launcher import Make, Part, Results


@dataclass(frozen=True)
class SerialLauncher:
    """One player, here."""

    def run(self, make_player: Make, parts: Sequence[Part]) -> Results:
        """See `Launcher`; what a player raises is raised as it is."""
        if not parts:
            return
        player = make_player()
        for part in parts:
            yield from ((part.key, result) for result in player.play(part))
