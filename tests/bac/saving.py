"""Every kind of file that `bac` saves, as a number that is written and read; and a program that is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import bac
from bac.caching.calibration import Calibration
from bac.certificate import Certificate
from bac.guarding.guard import identity
from bac.tuning.budget import Budget
from bac.tuning.machine import Machine
from bac.tuning.result import Tuned
from bac.tuning.trial import Trial
from tests.bac.statistics import calibration

SCHEDULE = bac.Schedule(3, {"a": (0, 2)})


@dataclass(frozen=True)
class Kind:
    """A file name, and how a number gets into the file and out again."""

    name: str
    save: Callable[[int, Path], None]
    load: Callable[[Path], int]


def guard(number: int) -> bac.Guard:
    return bac.Guard({"a": (None, 0.5, None)}, 0.1, 64, identity(SCHEDULE), patience=number)


def certificate(number: int) -> Certificate:
    rest = ("0" * 16, "1" * 16, "python -m eval.certify", "cpu", "2026-01-01")
    return Certificate("shown", "pusht", "a", "b", "success", number, 0.0, 0.0, 0.0, 0.05, 0.95, 9000, *rest)


def tuned(number: int) -> Tuned:
    trial = Trial("fewer steps", bac.Denoising(num_steps=number), 0.1, 0.1)
    return Tuned(trial, (trial,), Budget(None, 0.2, 0.1, "an error"), Machine(1.0, 1.0, float(number)))


def statistics(number: int) -> Calibration:
    """Large enough for several files of zarr, and all of it depends on the number."""
    similarity = {f"l{layer}.ffn": np.full((60, 60), 1 / number) for layer in range(3)}
    return replace(calibration(similarity, [1 / number] * 3), num_runs=number)


def number_of(path: Path) -> int:
    found = Calibration.load(path)
    assert (found.similarity == 1 / found.num_runs).all()
    return found.num_runs


KINDS = (
    Kind("bac.json", lambda n, path: bac.Denoising(num_steps=n).save(path), lambda path: bac.load(path).num_steps or 0),
    Kind("guard.json", lambda n, path: guard(n).save(path), lambda path: bac.Guard.load(path).patience),
    Kind("certificate.json", lambda n, path: certificate(n).save(path), lambda path: Certificate.load(path).n),
    Kind(
        "bac.tuned.json",
        lambda n, path: tuned(n).save(path),
        lambda path: int(json.loads(path.read_text())["machine"]["per_sweep_s"]),
    ),
    Kind("bac.calibration.zarr", lambda n, path: statistics(n).save(path), number_of),
)
OLD, NEW = 3, 7


def _child_saves(kind: Kind, path: Path) -> int:
    """Fork a process that saves the two numbers in turns for ever."""
    child = os.fork()
    if child == 0:
        while True:
            kind.save(NEW, path)
            kind.save(OLD, path)
    return child


def main(folder: Path, kills: int, reading_s: float) -> None:
    """Save each kind while it is read, and kill what saves it; say how often it was read, and which numbers it held."""
    for kind in KINDS:
        path, seen = folder / kind.name, {OLD: 0, NEW: 0}
        kind.save(OLD, path)
        child, end = _child_saves(kind, path), time.monotonic() + reading_s
        try:
            while time.monotonic() < end:
                seen[kind.load(path)] += 1
        except BaseException:
            os.kill(child, signal.SIGKILL)  # it would save for ever, and keep our output open
            raise
        for kill in range(kills):
            time.sleep(0.002 + 0.003 * kill)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            seen[kind.load(path)] += 1
            if kill < kills - 1:
                child = _child_saves(kind, path)
        print(kind.name, *seen.values())  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
