"""Statistics of an untouched policy's blocks over denoising steps, from which schedulers make schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bac.caching import arrays
from bac.caching.block import Block, BlockKind
from bac.caching.schedule import check_count
from bac.caching.similarity import (
    batched_caching_error,
    batched_cosine_similarity,
    batched_gram,
    batched_relative_change,
)
from bac.errors import CalibrationError
from bac.files import as_it_is, as_text, as_whole, one_sentence, part
from bac.fingerprint import Fingerprint

Array = npt.NDArray[np.float64]
_FORMAT, _VERSION = "bac.calibration", 1
_MAKE = "bac calibrate --policy-path CKPT --env ENV"
_ARRAYS = (
    "similarity",
    "similarity_std",
    "half_similarity",
    "caching_error",
    "caching_error_std",
    "half_caching_error",
)
_LATER_ARRAYS = ("gram", "change")  # absent from the first calibrations on disk
MAX_LAG = 3  # denoising steps; SmoothCache's longest skip


@dataclass(frozen=True, eq=False)
class Calibration:
    """Similarity and caching error of every block: means over denoising runs, and spread across runs.

    Frozen, checked when made.

    Attributes:
        blocks: The N blocks in order of evaluation, without their modules.
        num_steps: Denoising steps K.
        num_runs: Denoising runs measured: observations x noise draws.
        similarity: Mean cosine similarity between steps, `[N, K, K]`, in [-1, 1].
        similarity_std: Its standard deviation across runs, `[N, K, K]`.
        caching_error: Mean L1 caching error (BUA's measure), `[N]`, in units of the block's output.
        caching_error_std: Its standard deviation across runs, `[N]`.
        half_similarity: Mean similarity over the even and over the odd runs, `[2, N, K, K]`.
        half_caching_error: Mean caching error over the even and over the odd runs, `[2, N]`.
        fingerprint: Identity of the measured policy; schedules inherit it.
        gram: Mean products of a block's outputs at two steps, `[N, K, K]`; the diagonal is their mean square. None in
            calibrations of an earlier `bac`.
        change: Mean relative L1 change at each step over the last 0..3 steps, `[N, K, 4]`; infinite where fewer steps
            came before. None in calibrations of an earlier `bac`.
    """

    blocks: tuple[Block, ...]
    num_steps: int
    num_runs: int
    similarity: Array
    similarity_std: Array
    half_similarity: Array
    caching_error: Array
    caching_error_std: Array
    half_caching_error: Array
    fingerprint: Fingerprint
    gram: Array | None = None
    change: Array | None = None

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        if not isinstance(self.num_runs, int) or isinstance(self.num_runs, bool) or self.num_runs < 1:
            raise CalibrationError(f"num_runs: must be a whole number of at least 1, got {self.num_runs!r:.80}")
        if not self.blocks or len(set(self.block_names)) < len(self.blocks):
            raise CalibrationError(f"blocks: must be at least one, and have names of their own, got {self.block_names}")
        for name, shape in self._shapes().items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise CalibrationError(f"{name}: must have the shape {shape}, got {values.shape}")
            # The change over more steps than were made is infinite.
            if values is not None and not (~np.isnan(values) if name == "change" else np.isfinite(values)).all():
                raise CalibrationError(f"{name}: holds a number that is not finite")

    @property
    def block_names(self) -> tuple[str, ...]:
        """Blocks in order of evaluation."""
        return tuple(block.name for block in self.blocks)

    @property
    def halves(self) -> tuple[Calibration, Calibration]:
        """Two calibrations on disjoint halves of the runs. If their schedules differ, measure more runs."""
        first, second = (
            Calibration(
                blocks=self.blocks,
                num_steps=self.num_steps,
                num_runs=(self.num_runs + 1 - half) // 2,
                similarity=self.half_similarity[half],
                similarity_std=self.similarity_std,
                half_similarity=self.half_similarity[[half, half]],
                caching_error=self.half_caching_error[half],
                caching_error_std=self.caching_error_std,
                half_caching_error=self.half_caching_error[[half, half]],
                fingerprint=self.fingerprint,
                gram=self.gram,
                change=self.change,
            )
            for half in (0, 1)
        )
        return first, second

    def save(self, path: str | Path) -> None:
        """Write a zarr folder, whole or not at all (needs the package `zarr`).

        Raises:
            FileError: The folder or the disk does not take it.
        """
        known = {name: getattr(self, name) for name in (*_ARRAYS, *_LATER_ARRAYS) if getattr(self, name) is not None}
        attributes = {
            "format": _FORMAT,
            "version": _VERSION,
            "num_steps": self.num_steps,
            "num_runs": self.num_runs,
            "blocks": [[block.name, block.kind.value, block.layer] for block in self.blocks],
            "fingerprint": self.fingerprint.to_dict(),
        }
        arrays.save(path, known, attributes)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            CalibrationError: The folder is not a complete calibration of this version, or decoding it would run code.
        """
        with one_sentence(path, _MAKE, CalibrationError):
            found, document = arrays.load(path, _ARRAYS, _LATER_ARRAYS)
            if (document.get("format"), document.get("version")) != (_FORMAT, _VERSION):
                raise CalibrationError(f"is no calibration of version {_VERSION}")
            return cls(
                blocks=part(document, "blocks", _blocks),
                num_steps=part(document, "num_steps", as_it_is),
                num_runs=part(document, "num_runs", as_it_is),
                fingerprint=part(document, "fingerprint", Fingerprint.from_dict),
                **found,
            )

    def __str__(self) -> str:
        spread = f"similarity spread {self.similarity_std.mean():.3f} (mean standard deviation across runs)"
        return (
            f"Calibration: {len(self.blocks)} blocks, {self.num_steps} denoising steps, {self.num_runs} runs; {spread}"
        )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        num_blocks, num_steps = len(self.blocks), self.num_steps
        square, change = (num_blocks, num_steps, num_steps), (num_blocks, num_steps, MAX_LAG + 1)
        whole = {"similarity": square, "similarity_std": square, "gram": square, "change": change}
        errors = {"caching_error": (num_blocks,), "caching_error_std": (num_blocks,)}
        halves = {"half_similarity": (2, *square), "half_caching_error": (2, num_blocks)}
        return {**whole, **errors, **halves}


def _blocks(document: Any) -> tuple[Block, ...]:
    return tuple(Block(as_text(name), BlockKind(kind), as_whole(layer)) for name, kind, layer in document)


class Accumulator:
    """Sums statistics run by run. It holds the features of one call at a time: memory O(N K D)."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = tuple(block.described() for block in blocks)
        self._num_runs = 0
        self._num_steps = 0

    def add(self, features: Mapping[str, torch.Tensor]) -> None:
        """Take in the features of one call of the policy.

        Args:
            features: By block, `[K, B, ...]`: B runs side by side.

        Raises:
            CalibrationError: `features` are not finite, or have another number of steps than before.
        """
        num_steps, num_samples = next(iter(features.values())).shape[:2]
        if self._num_runs == 0:
            self._start(num_steps)
        elif num_steps != self._num_steps:
            raise CalibrationError(
                f"the policy made {num_steps} denoising steps after {self._num_steps} before; keep its number of "
                "inference steps fixed while calibrating"
            )
        half = (self._num_runs + np.arange(num_samples)) % 2  # alternating, so that both halves see every batch
        for index, block in enumerate(self._blocks):
            values = features[block.name].flatten(2)
            if not torch.isfinite(values).all():
                raise CalibrationError(
                    f"{block.name}: its output holds NaN or infinity; check weights and observations"
                )
            similarity = batched_cosine_similarity(values)
            self._accumulate("similarity", index, half, similarity.cpu().numpy())
            self._later["gram"][index] += batched_gram(values, similarity).sum(dim=0).cpu().numpy()
            self._later["change"][index] += batched_relative_change(values, MAX_LAG).sum(dim=0).numpy()
            self._accumulate("error", index, half, batched_caching_error(values).cpu().numpy())
        self._num_runs += num_samples

    def result(self, fingerprint: Fingerprint) -> Calibration:
        """The calibration so far.

        Raises:
            CalibrationError: Fewer than two runs were added.
        """
        if self._num_runs < 2:
            raise CalibrationError(
                f"batches: held {self._num_runs} observations; give at least two (16 or more is better), e.g. a list "
                "of observation batches"
            )
        similarity, similarity_std, half_similarity = self._moments("similarity")
        error, error_std, half_error = self._moments("error")
        return Calibration(
            blocks=self._blocks,
            num_steps=self._num_steps,
            num_runs=self._num_runs,
            similarity=similarity,
            similarity_std=similarity_std,
            half_similarity=half_similarity,
            caching_error=error,
            caching_error_std=error_std,
            half_caching_error=half_error,
            fingerprint=fingerprint,
            **{name: sums / self._num_runs for name, sums in self._later.items()},
        )

    def _start(self, num_steps: int) -> None:
        self._num_steps = num_steps
        shapes = {"similarity": (len(self._blocks), num_steps, num_steps), "error": (len(self._blocks),)}
        self._sums: dict[str, Array] = {name: np.zeros((2, *shape)) for name, shape in shapes.items()}
        self._squares: dict[str, Array] = {name: np.zeros(shape) for name, shape in shapes.items()}
        num_blocks = len(self._blocks)
        later = {"gram": (num_blocks, num_steps, num_steps), "change": (num_blocks, num_steps, MAX_LAG + 1)}
        self._later: dict[str, Array] = {name: np.zeros(shape) for name, shape in later.items()}

    def _accumulate(self, name: str, index: int, half: npt.NDArray[np.int64], values: Array) -> None:
        for parity in (0, 1):
            self._sums[name][parity, index] += values[half == parity].sum(axis=0)
        self._squares[name][index] += (values**2).sum(axis=0)

    def _moments(self, name: str) -> tuple[Array, Array, Array]:
        counts = np.array([(self._num_runs + 1) // 2, self._num_runs // 2], dtype=np.float64)
        sums = self._sums[name]
        mean = sums.sum(axis=0) / self._num_runs
        variance = np.maximum(self._squares[name] / self._num_runs - mean**2, 0.0)  # rounding may go below 0
        return mean, np.sqrt(variance), sums / counts.reshape(2, *(1,) * (sums.ndim - 1))
