"""A launcher whose processes on this machine take parts from one queue and put episodes into another."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.play.launchers.launcher import Make, Part, Results

POLL_S = 5.0


@dataclass(frozen=True)
class LocalLauncher:
    """Attributes:
    workers: Number of processes.
    """

    workers: int

    def run(self, make_player: Make, parts: Sequence[Part]) -> Results:
        """See `Launcher`. A process that dies is not replaced; run the command again."""
        context = multiprocessing.get_context("spawn")
        tasks, results = context.Queue(), context.Queue()
        for part in [*parts, *[None] * self.workers]:
            tasks.put(part)
        processes = [
            context.Process(target=_serve, args=(make_player, tasks, results), daemon=True)
            for _ in range(min(self.workers, len(parts)))
        ]
        for process in processes:
            process.start()
        try:
            yield from _collect(processes, results)
        finally:
            for process in processes:
                process.terminate()
                process.join()


def _collect(processes: list[Any], results: Any) -> Results:
    running_count = len(processes)
    while running_count:
        try:
            message = results.get(timeout=POLL_S)
        except queue.Empty:
            dead = [process for process in processes if process.exitcode not in (None, 0)]
            if dead:
                raise RuntimeError(f"a worker died with exit code {dead[0].exitcode}; run again to go on") from None
            continue
        if message is None:
            running_count -= 1
        elif isinstance(message, str):
            raise RuntimeError(f"a worker failed; run again to go on:\n{message}")
        else:
            yield message


def _serve(make_player: Make, tasks: Any, results: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        player = make_player()
        for part in iter(tasks.get, None):
            for result in player.play(part):
                results.put((part.key, result))
        results.put(None)
    except Exception:  # the parent must hear of any error before this process dies of it
        results.put(traceback.format_exc())
        raise


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone: one that was killed ended nobody, and worlds hold gigabytes."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)
