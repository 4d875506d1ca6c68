"""Certify a Denoising in closed loop: ``python -m eval.certify policy=assembly cache=bac margin=0.05``.

The policy itself and the accelerated one play the same worlds with the same noise, pair by pair. The command stops as
soon as the pairs show, or refute, that the loss is below the margin (see `bac.tuning.sequential`).

The subject is the configured cache. With ``tuned=true`` it is the Denoising that was tuned for the policy; with
``certify.file=bac.json`` it is a file that `bac calibrate` or `bac tune` wrote.

A policy that is told its task in words plays its tasks in turn.

The seeds start in a range of their own, so the subject was neither made nor chosen in any of these worlds. The command
writes ``bac.json`` and ``certificate.json`` to one folder; copy both beside a checkpoint's weights.
"""

import csv
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from tqdm import tqdm

import bac
from bac.certificate import CERTIFICATE_NAME, Certificate, file_hash
from bac.files import probe, write_text
from bac.tuning.sequential import bounds, non_inferiority
from eval.compared.comparison import Comparison
from eval.compared.many_tasks import ManyTasks
from eval.compared.worlds import AllTasks, OneTask, Worlds
from eval.setup.cells import Cell, holding, itself
from eval.setup.config import CONFIGS, cell_of, log_to_terminal, settings_of
from eval.setup.provenance import command_line, processor
from eval.setup.settings import Settings

logger = logging.getLogger(__name__)
QUANTITIES = ("success", "score")


@dataclass(frozen=True)
class Subject:
    """The cell and the Denoising to certify.

    Attributes:
        cell: The policy's configuration, and the method's name.
        denoising: The Denoising that is put on the policy. ``bac.json`` will hold it, and LeRobot's commands follow it.
    """

    cell: Cell
    denoising: bac.Denoising


class Pairs:
    """Paired episodes of a subject and the policy itself, which are played on demand.

    Args:
        worlds: Where they are played.
        subject: The cell and the Denoising to certify.
        quantity: What is compared, "success" or "score".
        options: `certify` of ``configs/eval.yaml``.
        progress: Show a bar.
    """

    def __init__(self, worlds: Worlds, subject: Subject, quantity: str, options: Any, *, progress: bool) -> None:
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity: must be one of {', '.join(QUANTITIES)}, got {quantity!r}")
        self.quantity = quantity
        self._worlds, self._options, self._progress = worlds, options, progress
        self._ways = ((itself(subject.cell), bac.Denoising()), (subject.cell, subject.denoising))
        self.seen: list[tuple[float, float]] = []  # reference, method

    def differences(self) -> Iterator[float]:
        """Yield method minus reference, world by world, each in [-1, 1]; stop after ``max_n`` pairs."""
        count, step = self._options.max_n, self._options.batch
        with tqdm(total=count, desc="pairs", unit="pair", disable=not self._progress) as bar:
            for start in range(0, count, step):
                numbers = range(start, min(start + step, count))
                played = (self._worlds.play(cell, denoising, numbers) for cell, denoising in self._ways)
                for pair in zip(*played, strict=True):
                    bar.update()
                    before, after = (float(getattr(result, self.quantity)) for result in pair)
                    self.seen.append((before, after))
                    yield after - before

    def save(self, path: Path) -> None:
        """Write every pair that was looked at as CSV, one line per pair."""
        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([*self._worlds.columns, f"{self.quantity} of reference", f"{self.quantity} of method"])
        for number, (before, after) in enumerate(self.seen):
            writer.writerow([*self._worlds.place(number), f"{before:.6g}", f"{after:.6g}"])
        write_text(path, table.getvalue())


def certify(
    settings: Settings,
    subject: Subject,
    folder: Path,
    *,
    margin: float,
    confidence: float,
    options: Any,
    many: ManyTasks | None = None,
) -> Certificate:
    """Play until the verdict, and write ``bac.json``, ``certificate.json`` and the evidence, ``pairs.csv``.

    Args:
        settings: Policy and world.
        subject: The cell and the Denoising to certify.
        folder: Folder of the three files.
        margin: Largest tolerated loss, in (0, 1).
        confidence: Confidence of the verdict, in (0, 1).
        options: `certify` of ``configs/eval.yaml``.
        many: Play all tasks of this policy in turn, instead of the task of `settings`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe(folder / CERTIFICATE_NAME)  # before hours of episodes
    first = options.first_seed
    worlds: Worlds = OneTask(settings, first) if many is None else AllTasks(many, first)
    quantity = options.quantity or ("score" if settings.judged_by_score else "success")
    pairs = Pairs(worlds, subject, quantity, options, progress=settings.progress)
    outcome = non_inferiority(pairs.differences(), margin, confidence=confidence, every=worlds.turn)
    low, high = bounds(outcome.differences, confidence=confidence, every=worlds.turn)
    subject.denoising.save(folder / "bac.json")
    pairs.save(folder / "pairs.csv")
    certificate = Certificate(
        verdict=outcome.verdict,
        task=worlds.task,
        method=subject.cell.name,
        reference=itself(subject.cell).name,
        quantity=pairs.quantity,
        n=outcome.n,
        difference=float(np.mean(outcome.differences)),
        low=low,
        high=high,
        margin=margin,
        confidence=confidence,
        first_seed=first,
        schedule_hash=file_hash(folder / "bac.json"),
        weights_hash=settings.identity["weights"],
        command=command_line(),
        device=processor(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    certificate.save(folder / CERTIFICATE_NAME)
    return certificate


def subject_of(config: Any, settings: Settings) -> Subject:
    """The subject that the configuration names: a file, the policy's tuned Denoising, or a cache.

    Raises:
        SystemExit: The configuration names the dense reference itself, or a cache and a policy of several tasks.
    """
    if config.certify.file:
        return stored_subject(Path(config.certify.file), cell_of(config))
    if settings.tuned is not None:
        return stored_subject(settings.checkpoint / settings.tuned, cell_of(config))
    cell = cell_of(config)
    if cell.is_dense:
        raise SystemExit("cache: dense is the reference itself; name a cache, tuned=true, or certify.file=FILE")
    if config.get("tasks"):
        raise SystemExit("cache: is calibrated on one task, and this policy has several; name certify.file=FILE")
    return Subject(cell, Comparison(settings).denoising(cell))


def stored_subject(path: Path, sampler: Cell) -> Subject:
    """The subject that a file holds.

    Args:
        path: A ``bac.json``.
        sampler: The policy's configuration; it applies to all that the file leaves open.
    """
    denoising = bac.load(path)
    title = denoising.name if denoising.solver else f"{path} on {sampler.solver_name}"
    return Subject(holding(denoising, title, on=sampler.sampler), denoising)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Certify the subject that the configuration names."""
    log_to_terminal()
    tasks = config.get("tasks")
    settings = settings_of(config, of_many_tasks=bool(tasks))
    subject, folder = subject_of(config, settings), Path(config.certify.folder)
    many = ManyTasks(settings, tasks, config.vla.pixels) if tasks else None
    options = {"margin": config.margin, "confidence": config.confidence, "options": config.certify, "many": many}
    print(certify(settings, subject, folder, **options), f"\nWritten to {folder}")


if __name__ == "__main__":
    main()
