"""Where work is done: in this process, in processes of this machine, or by Ray on many machines.

A launcher is given parts of work and a function that makes a player, and yields finished episodes in any order. It
knows neither policies nor worlds. Because an episode depends on its seed alone, every launcher yields the same
episodes.
"""

from eval.play.launchers.launcher import Launcher, Make, Part, Player, Results
from eval.play.launchers.local import LocalLauncher
from eval.play.launchers.ray import RayLauncher
from eval.play.launchers.serial import SerialLauncher

__all__ = ["LAUNCHERS", "Launcher", "Make", "Part", "Player", "Results", "launcher_named"]

LAUNCHERS = ("serial", "local", "ray")


def launcher_named(name: str, *, workers: int, address: str | None = None) -> Launcher:
    """One of `LAUNCHERS`.

    Args:
        name: Which.
        workers: Players at work at once, at least 1; ``serial`` has one.
        address: Where a Ray cluster is; only for ``ray``.

    Raises:
        ValueError: No launcher has that name, there is no worker, or an address where none is wanted.
    """
    if name not in LAUNCHERS:
        raise ValueError(f"launcher: must be one of {', '.join(LAUNCHERS)}, got {name!r}")
    if workers < 1:
        raise ValueError(f"workers: at least one is needed, got {workers}")
    if name == "ray":
        return RayLauncher(workers, address)
    if address is not None:
        raise ValueError(f"launcher.address={address}: only Ray is told where to go; type launcher=ray")
    return SerialLauncher() if name == "serial" or workers == 1 else LocalLauncher(workers)
