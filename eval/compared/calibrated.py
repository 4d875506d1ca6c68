"""Observations that the dense policy visits, calibrations and Denoisings: computed once per policy and world."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import bac
from bac.caching.calibration import Calibration
from bac.tuning.batches import in_parts
from eval.play.visit import visited
from eval.setup.batches import Batch, kept
from eval.setup.cells import Cell, build_denoising, dense, running
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED, Settings

logger = logging.getLogger(__name__)
CALIBRATION_BATCH = 8


class Calibrated:
    """Observations, calibrations and Denoisings of one comparison.

    Each is computed when first asked for. Observations and calibrations are kept on disk.

    Args:
        settings: Settings of the comparison.
        loaded: The policy with its processors; every method leaves it unwrapped.
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
        settings = self._settings
        first = {"calibration": CALIBRATION_SEED, "fidelity": FIDELITY_SEED}[purpose]
        visit = partial(
            visited, self._loaded, settings.make_env, first, settings.num_observations,
            cell=dense(), episodes=settings.num_observation_episodes, progress=settings.progress,
        )  # fmt: skip
        return kept(settings.folder / f"observations-{purpose}.npz", visit)

    def calibration(self, cell: Cell) -> Calibration:
        """The calibration of the cell's solver."""
        sampler = cell.sampler
        if sampler not in self._calibrations:
            path = self._settings.folder / "calibrations" / f"{sampler.name.replace(' ', '-')}.zarr"
            if not path.exists():
                self._calibrate(sampler, path)
            self._calibrations[sampler] = Calibration.load(path)
        return self._calibrations[sampler]

    def denoising(self, cell: Cell) -> bac.Denoising:
        """The cell's Denoising."""
        if cell.cache == "dense":
            return cell.denoising or bac.Denoising()
        return build_denoising(cell, self.calibration(cell))

    def _calibrate(self, sampler: Cell, path: Path) -> None:
        settings = self._settings
        batches = in_parts(self.observations("calibration"), CALIBRATION_BATCH)
        with running(self._loaded.policy, sampler) as policy:
            calibration = bac.calibrate(
                policy, batches, num_draws=settings.num_draws, seed=0, progress=settings.progress
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        calibration.save(path)
        logger.info("%s: %s", sampler.name, calibration)
