"""Launchers do the work in this process, in processes of this machine, or through Ray on many machines.

A launcher takes parts of work and a function that makes a player, and yields finished episodes in any order. It knows
neither policies nor worlds. Because an episode depends on its seed alone, every launcher yields the same episodes.
"""

from eval.play.launchers.launcher import Launcher, Make, Part, Player, Results
from eval.play.launchers.local import LocalLauncher
from eval.play.launchers.ray import RayLauncher
from eval.play.launchers.serial import SerialLauncher

__all__ = ["LAUNCHERS", "Launcher", "Make", "Part", "Player", "Results", "launcher_named"]

LAUNCHERS = ("serial", "local", "ray")


def launcher_named(name: str, *, workers: int, address: str | None = None) -> Launcher:
    """Make a launcher by its name.

    Args:
        name: One of `LAUNCHERS`.
        workers: Players that work at once, at least 1; ``serial`` has one.
        address: Address of a Ray cluster; only for ``ray``.

    Raises:
        ValueError: The name is unknown, `workers` is below 1, or another launcher than ``ray`` got an address.
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
