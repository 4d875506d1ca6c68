"""Observation batches: select rows, split, merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bac.errors import CalibrationError

Batch = Mapping[str, Any]
ENOUGH = 16  # observations to fit on; with fewer, reports warn


def rows_of(batch: Batch, which: slice) -> Batch:
    """Some observations of a batch. A value that is not a tensor or list belongs to all observations."""
    return {key: value[which] if isinstance(value, (Tensor, list)) else value for key, value in batch.items()}


def num_rows(batch: Batch) -> int:
    """Number of observations in a batch."""
    return len(next(value for value in batch.values() if isinstance(value, (Tensor, list))))


def tiled(batch: Batch, count: int) -> Batch:
    """All observations of a batch, `count` times one after the other: row ``i`` is observation ``i % num_rows``."""
    return batch if count == 1 else merged([batch] * count)


def in_parts(batch: Batch, size: int) -> list[Batch]:
    """Split a batch into batches of `size` observations; the last one holds the rest."""
    return [rows_of(batch, slice(start, start + size)) for start in range(0, num_rows(batch), size)]


def merged(batches: Sequence[Batch]) -> Batch:
    """All observations in one batch. A value that is not a tensor or list is taken from the first batch."""
    first, *others = batches
    if not others:
        return first
    return {key: _joined(value, [batch[key] for batch in others]) for key, value in first.items()}


def _joined(value: Any, others: Sequence[Any]) -> Any:
    if isinstance(value, Tensor):
        return torch.cat([value, *others])
    return sum(others, value) if isinstance(value, list) else value


def split(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Split observations into fitting and held-out ones: every other batch, or every other row of a single batch.

    Raises:
        CalibrationError: Fewer than two observations would fit, or none would judge.
    """
    if len(batches) > 1:
        fit, held_out = list(batches[::2]), list(batches[1::2])
    else:
        fit = [rows_of(batch, slice(0, None, 2)) for batch in batches]
        held_out = [rows_of(batch, slice(1, None, 2)) for batch in batches]
    to_fit, to_judge = (sum(num_rows(batch) for batch in half) for half in (fit, held_out))
    if to_fit < 2 or to_judge < 1:
        raise CalibrationError(
            "batches: must hold at least three observations, two to fit and one to judge (32 or more is better), "
            f"got {to_fit} and {to_judge}"
        )
    return fit, held_out


def notes_of_few(batches: Sequence[Batch]) -> list[str]:
    """A warning if there are few observations to fit on."""
    count = sum(map(num_rows, batches))
    enough = f"take {ENOUGH} or more (bac tune: --runs {2 * ENOUGH})"
    words = f"WARNING: only {count} observations to fit on, so the errors are uncertain; {enough}"
    return [words] if count < ENOUGH else []
