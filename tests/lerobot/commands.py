"""LeRobot's commands, each in a process of its own.

The process forks from one that has imported LeRobot already: importing it takes longer than what the tests do with it.
All else is as on a command line. What a command can import stands in front of the installed packages, folder by
folder; this repository, and so `bac`, is not among them unless it is named.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# Not LeRobot's asynchronous server and client, which make a folder for their logs where they are imported.
_PRELOADED = (
    "lerobot.policies.factory",
    "lerobot.rollout",
    "lerobot.envs",
    "lerobot.robots.so_follower",
    "lerobot.policies.multi_task_dit.modeling_multi_task_dit",
    "lerobot.policies.smolvla.modeling_smolvla",
    "transformers.models.clip.modeling_clip",
    "transformers.models.smolvlm.processing_smolvlm",
    "gym_pusht",
)


@dataclass(frozen=True)
class Command:
    """A command that was started; what it prints and logs goes to one file."""

    process: BaseProcess
    log: Path

    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def finish(self, timeout_s: float = 500.0) -> str:
        """Wait until it has ended well; what it said."""
        self.process.join(timeout_s)
        assert self.process.exitcode == 0, f"exit code {self.process.exitcode}\n{self.output()[-3000:]}"
        return self.output()

    def say(self, words: str, timeout_s: float = 300.0) -> None:
        """Wait until it says `words`."""
        wait_until(lambda: words in self.output() or not self.process.is_alive(), timeout_s)
        assert words in self.output(), f"it never said {words!r}\n{self.output()[-3000:]}"

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        os.kill(self.process.pid or 0, signal.SIGINT)

    def kill(self) -> None:
        """At once, with no chance to say good-bye. Harmless if it has ended."""
        self.process.kill()
        self.process.join()


def start(
    module: str, *arguments: str | Path, folder: Path, log: str, paths: Sequence[Path] = (), **environment: str
) -> Command:
    """Start ``python -m module arguments``.

    Args:
        folder: Working directory; made if it does not exist.
        log: Name of the file in it that the output goes to.
        paths: What it can import besides installed packages, first come first served.
        environment: Variables in addition to this process's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    places = [str(path) for path in paths]
    given = (module, [str(argument) for argument in arguments], str(folder), log, places, environment)
    process = context.Process(target=_become, args=given)
    process.start()
    return Command(process, folder / log)


def install(folder: Path, name: str, source: Path | None = None) -> Path:
    """Make a folder look, to whoever imports from it, as if a distribution was installed there.

    Args:
        folder: Made if it does not exist.
        name: Of the distribution and of its only module.
        source: The module; None if it lies on the path already.
    """
    info = folder / f"{name}-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    if source is not None:
        shutil.copy(source, folder / f"{name}.py")
    return folder


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Look ten times a second; whether it held in time."""
    late = time.monotonic() + timeout_s
    while time.monotonic() < late:
        if holds():
            return True
        time.sleep(0.1)
    return holds()


def _forget_what_is_installed_of_this_repository(paths: Sequence[str]) -> None:
    """`make setup` installs its plug-ins, and LeRobot imports those; let only what `paths` hold be installed."""
    find, ours = importlib.metadata.distributions, ("lerobot_policy_bac", "lerobot_policy_diffusion_transformer")

    def found(**context: Any) -> Iterator[importlib.metadata.Distribution]:
        for one in find(**context):
            if one.metadata["Name"] not in ours or str(one.locate_file("")).rstrip("/") in paths:
                yield one

    importlib.metadata.distributions = found


def _become(
    module: str, arguments: list[str], folder: str, log: str, paths: list[str], environment: dict[str, str]
) -> None:
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for name in [name for name in os.environ if name.startswith("BAC")]:
        del os.environ[name]
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[:] = [*paths, *(path for path in sys.path if Path(path).resolve() != ROOT)]
    _forget_what_is_installed_of_this_repository(paths)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing does not
