"""Observation batches that are computed once and then read from disk. `bac.tuning.batches` cuts and joins them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bac.files import drafted

Batch = dict[str, torch.Tensor]


def kept(path: Path, make: Callable[[], Batch]) -> Batch:
    """Read the batch from a file; if there is no file, make the batch and write it first."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        batch = make()
        with drafted(path) as draft:  # half a file would be read the next time
            np.savez(draft, **{key: values.numpy() for key, values in batch.items()})
    with np.load(path) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def spread(batch: Batch, count: int) -> Batch:
    """`count` observations of a batch, evenly spread over it; some of them twice if the batch holds fewer."""
    num_rows = len(next(iter(batch.values())))
    rows = torch.linspace(0, num_rows - 1, count).round().long()
    return {key: values[rows].clone() for key, values in batch.items()}


def one_of(batch: Batch) -> Batch:
    """The first observation alone."""
    return {key: values[:1] for key, values in batch.items()}
