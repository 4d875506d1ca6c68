"""Is it good enough? ``python -m eval.certify policy=assembly cache=bac margin=0.05`` plays until it is known.

The dense policy and the one in question play the same worlds with the same noise, pair by pair. The comparison stops as
soon as it is shown or refuted that less is lost than the margin (see `eval.measure.sequential`). In question is the
cache that is configured; or, with ``tuned=true``, the policy as it was tuned; or what a file holds,
``certify.file=bac.json`` of `bac calibrate` or `bac tune`. Seeds begin where nothing else does, so that no world is met
that any of it was made or chosen in. ``bac.json`` and ``certificate.json`` go to one folder, to be copied beside a
checkpoint's weights.
"""

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from tqdm import tqdm

import bac
from bac.certificate import CERTIFICATE_NAME, Certificate, file_hash
from eval.compared.comparison import Comparison
from eval.measure.sequential import bounds, non_inferiority
from eval.play.records import EpisodeLog
from eval.play.rollout import EpisodeResult
from eval.play.workers import Unit, UnitPlayer, missing, unit_key
from eval.setup.cells import Cell, dense, holding
from eval.setup.config import CONFIGS, cell_of, log_to_terminal, settings_of
from eval.setup.provenance import command_line, processor
from eval.setup.settings import Settings

logger = logging.getLogger(__name__)
QUANTITIES = ("success", "score")


@dataclass(frozen=True)
class Subject:
    """What is to be certified.

    Attributes:
        cell: How the policy is configured, and the method's name.
        denoising: What is put on it, and what ``bac.json`` will hold for LeRobot's commands to follow.
    """

    cell: Cell
    denoising: bac.Denoising


class Pairs:
    """Paired episodes of a cell and the dense policy, played when they are asked for, and kept.

    Args:
        settings: Policy and world.
        subject: What is to be certified.
        options: `certify` of ``configs/eval.yaml``.
    """

    def __init__(self, settings: Settings, subject: Subject, options: Any) -> None:
        self.quantity = options.quantity or ("score" if settings.judged_by_score else "success")
        if self.quantity not in QUANTITIES:
            raise ValueError(f"quantity: must be one of {', '.join(QUANTITIES)}, got {self.quantity!r}")
        self._settings, self._options = settings, options
        self._log = EpisodeLog(settings.folder / "certify.jsonl")
        self._player = UnitPlayer(settings)
        self._ways = ((dense(), bac.Denoising()), (subject.cell, subject.denoising))
        self.seen: list[tuple[int, float, float]] = []  # seed, reference, method

    def differences(self) -> Iterator[float]:
        """Method minus reference, in order of seed, each in [-1, 1]; stops at ``max_n``."""
        first, count, step = self._options.first_seed, self._options.max_n, self._options.batch
        with tqdm(total=count, desc="pairs", unit="pair", disable=not self._settings.progress) as bar:
            for start in range(first, first + count, step):
                seeds = range(start, min(start + step, first + count))
                reference, method = (self._play(cell, denoising, seeds) for cell, denoising in self._ways)
                for seed, *pair in zip(seeds, reference, method, strict=True):
                    bar.update()
                    before, after = (float(getattr(result, self.quantity)) for result in pair)
                    self.seen.append((seed, before, after))
                    yield after - before

    def save(self, path: Path) -> None:
        """Write every pair that was looked at, a line each."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["seed", f"{self.quantity} of reference", f"{self.quantity} of method"])
            writer.writerows((seed, f"{before:.6g}", f"{after:.6g}") for seed, before, after in self.seen)

    def _play(self, cell: Cell, denoising: bac.Denoising, seeds: Sequence[int]) -> list[EpisodeResult]:
        unit = Unit(unit_key(self._settings, cell, denoising), cell, denoising, tuple(seeds))
        for result in self._player.play(missing(unit, self._log)):
            self._log.add(unit.key, result)
        episodes = self._log.episodes(unit.key)
        return [episodes[seed] for seed in seeds]


def certify(
    settings: Settings,
    subject: Subject,
    folder: Path,
    *,
    margin: float,
    confidence: float,
    options: Any,
) -> Certificate:
    """Play until the verdict, and write ``bac.json``, ``certificate.json`` and the evidence, ``pairs.csv``.

    Args:
        settings: Policy and world.
        subject: What is to be certified.
        folder: Where the files go.
        margin: What may be lost, in (0, 1).
        confidence: Of the verdict, in (0, 1).
        options: `certify` of ``configs/eval.yaml``.
    """
    pairs = Pairs(settings, subject, options)
    outcome = non_inferiority(pairs.differences(), margin, confidence=confidence)
    low, high = bounds(outcome.differences, confidence=confidence)
    folder.mkdir(parents=True, exist_ok=True)
    subject.denoising.save(folder / "bac.json")
    pairs.save(folder / "pairs.csv")
    certificate = Certificate(
        verdict=outcome.verdict,
        task=settings.task,
        method=subject.cell.name,
        reference=dense().name,
        quantity=pairs.quantity,
        n=outcome.n,
        difference=float(np.mean(outcome.differences)),
        low=low,
        high=high,
        margin=margin,
        confidence=confidence,
        first_seed=options.first_seed,
        schedule_hash=file_hash(folder / "bac.json"),
        weights_hash=settings.identity["weights"],
        command=command_line(),
        device=processor(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    certificate.save(folder / CERTIFICATE_NAME)
    return certificate


def subject_of(config: Any, settings: Settings) -> Subject:
    """What the configuration asks to certify: a file, the policy as it was tuned, or a cache.

    Raises:
        SystemExit: That is the reference itself.
    """
    if config.certify.file:
        return stored_subject(Path(config.certify.file), cell_of(config))
    if settings.tuned is not None:
        return stored_subject(settings.checkpoint / settings.tuned, cell_of(config))
    cell = cell_of(config)
    if cell.is_dense:
        raise SystemExit("cache: dense is the reference itself; name a cache, tuned=true, or certify.file=FILE")
    return Subject(cell, Comparison(settings).denoising(cell))


def stored_subject(path: Path, sampler: Cell) -> Subject:
    """What a file holds.

    Args:
        path: A ``bac.json``.
        sampler: How the policy is configured: what the file leaves as the policy has it.
    """
    denoising = bac.load(path)
    title = denoising.name if denoising.solver else f"{path} on {sampler.solver_name}"
    return Subject(holding(denoising, title, on=sampler.sampler), denoising)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Certify the configured cell, the policy as it was tuned, or what a file holds."""
    log_to_terminal()
    settings = settings_of(config)
    folder = Path(config.certify.folder)
    options = {"margin": config.margin, "confidence": config.confidence, "options": config.certify}
    print(certify(settings, subject_of(config, settings), folder, **options), f"\nWritten to {folder}")


if __name__ == "__main__":
    main()
