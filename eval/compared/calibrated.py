"""What is computed once per policy and world: observations the dense policy visits, calibrations, schedules."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import bac
from bac.caching.calibration import Calibration
from eval.setup.cells import Cell, build_schedule, dense, running
from eval.play.rollout import Batch, EnvPool, play
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED, Settings

logger = logging.getLogger(__name__)
CALIBRATION_BATCH = 8


class Calibrated:
    """Observations, calibrations and schedules of one comparison; computed when first asked, kept on disk.

    Args:
        settings: The comparison.
        loaded: The policy with its processors; it is left unwrapped.
    """

    def __init__(self, settings: Settings, loaded: Any) -> None:
        self._settings = settings
        self._loaded = loaded
        self._calibrations: dict[Cell, Calibration] = {}

    def observations(self, purpose: str) -> Batch:
        """Preprocessed observations, `[num_observations, To, D]` each, of dense episodes.

        Args:
            purpose: ``calibration`` or ``fidelity``; the two come from different episodes.
        """
        path = self._settings.folder / f"observations-{purpose}.npz"
        if not path.exists():
            first = {"calibration": CALIBRATION_SEED, "fidelity": FIDELITY_SEED}[purpose]
            batch = self._visit(first, purpose)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{key: values.numpy() for key, values in batch.items()})
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    def calibration(self, cell: Cell) -> Calibration:
        """Calibration of the cell's solver."""
        sampler = cell.sampler
        if sampler not in self._calibrations:
            path = self._settings.folder / "calibrations" / f"{sampler.name.replace(' ', '-')}.zarr"
            if not path.exists():
                self._calibrate(sampler, path)
            self._calibrations[sampler] = Calibration.load(path)
        return self._calibrations[sampler]

    def schedule(self, cell: Cell) -> bac.Schedule | None:
        """The cell's schedule; None if it is dense."""
        return None if cell.cache == "dense" else build_schedule(cell, self.calibration(cell))

    def _visit(self, first_seed: int, purpose: str) -> Batch:
        settings = self._settings
        count = settings.num_observation_episodes
        seen: list[Batch] = []
        with running(self._loaded.policy, dense(), None):
            episodes = play(
                self._loaded,
                EnvPool(settings.make_env),
                range(first_seed, first_seed + count),
                observe=seen.append,
            )
            _exhaust(tqdm(episodes, f"observe ({purpose})", count, unit="episode", disable=not settings.progress))
        visited = {key: torch.cat([batch[key] for batch in seen]) for key in seen[0]}
        rows = np.linspace(0, len(next(iter(visited.values()))) - 1, settings.num_observations).round().astype(int)
        return {key: values[torch.from_numpy(rows)].clone() for key, values in visited.items()}

    def _calibrate(self, sampler: Cell, path: Path) -> None:
        settings = self._settings
        observations = self.observations("calibration")
        batches = [
            {key: values[start : start + CALIBRATION_BATCH] for key, values in observations.items()}
            for start in range(0, settings.num_observations, CALIBRATION_BATCH)
        ]
        with running(self._loaded.policy, sampler, None) as policy:
            calibration = bac.calibrate(
                policy, batches, num_draws=settings.num_draws, seed=0, progress=settings.progress
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        calibration.save(path)
        logger.info("%s: %s", sampler.name, calibration)


def _exhaust(iterator: Iterable[object]) -> None:
    for _ in iterator:
        pass
