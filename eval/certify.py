"""Is a cache good enough? ``python -m eval.certify policy=assembly cache=bac margin=0.05`` plays until it is known.

Dense and cached policy play the same worlds with the same noise, pair by pair, and the comparison stops as soon as it
is shown or refuted that the cache loses less than the margin (see `eval.sequential`). Seeds begin where nothing else
does, so that no world is met that a schedule was made or chosen in. ``bac.json`` and ``certificate.json`` go to one
folder, to be copied beside a checkpoint's weights.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from tqdm import tqdm

import bac
from bac.certificate import CERTIFICATE_NAME, Certificate, schedule_hash
from eval.cells import Cell, dense
from eval.comparison import Comparison
from eval.config import CONFIGS, cell_of, log_to_terminal, settings_of
from eval.provenance import command_line, processor
from eval.records import EpisodeLog
from eval.rollout import EpisodeResult
from eval.sequential import bounds, non_inferiority
from eval.settings import Settings
from eval.workers import Player, Unit, missing, unit_key

logger = logging.getLogger(__name__)
QUANTITIES = ("success", "score")


class Pairs:
    """Paired episodes of a cell and the dense policy, played when they are asked for, and kept.

    Args:
        settings: Policy and world.
        cell: The cell to certify.
        schedule: Its schedule.
        options: `certify` of ``configs/eval.yaml``.
    """

    def __init__(self, settings: Settings, cell: Cell, schedule: bac.Schedule, options: Any) -> None:
        if options.quantity not in QUANTITIES:
            raise ValueError(f"quantity: must be one of {', '.join(QUANTITIES)}, got {options.quantity!r}")
        self._settings, self._options = settings, options
        self._log = EpisodeLog(settings.folder / "certify.jsonl")
        self._player = Player(settings)
        self._cells = ((dense(), None), (cell, schedule))

    def differences(self) -> Iterator[float]:
        """Method minus reference, in order of seed, each in [-1, 1]; stops at ``max_n``."""
        first, count, step = self._options.first_seed, self._options.max_n, self._options.batch
        with tqdm(total=count, desc="pairs", unit="pair", disable=not self._settings.progress) as bar:
            for start in range(first, first + count, step):
                seeds = range(start, min(start + step, first + count))
                reference, method = (self._play(cell, schedule, seeds) for cell, schedule in self._cells)
                for before, after in zip(reference, method, strict=True):
                    bar.update()
                    yield float(getattr(after, self._options.quantity)) - float(getattr(before, self._options.quantity))

    def _play(self, cell: Cell, schedule: bac.Schedule | None, seeds: Sequence[int]) -> list[EpisodeResult]:
        unit = Unit(unit_key(self._settings, cell, schedule), cell, schedule, tuple(seeds))
        for result in self._player.play(missing(unit, self._log)):
            self._log.add(unit.key, result)
        episodes = self._log.episodes(unit.key)
        return [episodes[seed] for seed in seeds]


def certify(
    settings: Settings,
    cell: Cell,
    schedule: bac.Schedule,
    folder: Path,
    *,
    margin: float,
    confidence: float,
    options: Any,
) -> Certificate:
    """Play until the verdict, and write ``bac.json`` and ``certificate.json``.

    Args:
        settings: Policy and world.
        cell: The cell to certify: its solver, and its name.
        schedule: Its schedule.
        folder: Where both files go.
        margin: What may be lost, in (0, 1).
        confidence: Of the verdict, in (0, 1).
        options: `certify` of ``configs/eval.yaml``.
    """
    outcome = non_inferiority(Pairs(settings, cell, schedule, options).differences(), margin, confidence=confidence)
    low, high = bounds(outcome.differences, confidence=confidence)
    folder.mkdir(parents=True, exist_ok=True)
    schedule.save(folder / "bac.json")
    certificate = Certificate(
        verdict=outcome.verdict,
        task=settings.task,
        method=cell.name,
        reference=dense().name,
        quantity=options.quantity,
        n=outcome.n,
        difference=float(np.mean(outcome.differences)),
        low=low,
        high=high,
        margin=margin,
        confidence=confidence,
        first_seed=options.first_seed,
        schedule_hash=schedule_hash(folder / "bac.json"),
        weights_hash=settings.identity["weights"],
        command=command_line(),
        device=processor(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    certificate.save(folder / CERTIFICATE_NAME)
    return certificate


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Certify the configured cell, or the schedule of a file."""
    log_to_terminal()
    settings, cell = settings_of(config), cell_of(config)
    if config.certify.schedule:
        schedule = bac.Schedule.load(config.certify.schedule)
        cell = Cell(f"{config.certify.schedule} on {cell.solver_name}", cell.solver, cell.num_steps)
    elif cell.cache == "dense":
        raise SystemExit("cache: dense is the reference itself; name a cache, or certify.schedule=FILE")
    else:
        schedule = Comparison(settings).schedule(cell)
    folder = Path(config.certify.folder)
    options = {"margin": config.margin, "confidence": config.confidence, "options": config.certify}
    print(certify(settings, cell, schedule, folder, **options), f"\nWritten to {folder}")


if __name__ == "__main__":
    main()
