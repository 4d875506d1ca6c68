"""Calibrations made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bac.caching.block import Block, BlockKind
from bac.caching.calibration import Calibration
from bac.fingerprint import Fingerprint

_KINDS = {
    "self_attn": BlockKind.SELF_ATTENTION,
    "cross_attn": BlockKind.CROSS_ATTENTION,
    "ffn": BlockKind.FEED_FORWARD,
}


def block(name: str) -> Block:
    """``l3.ffn`` is the feed-forward block of layer 3."""
    layer, kind = name.split(".")
    return Block(name, _KINDS[kind], int(layer.removeprefix("l")))


def calibration(similarity: Mapping[str, np.ndarray], caching_error: Sequence[float]) -> Calibration:
    """A calibration with these statistics and no spread."""
    matrices, errors = np.stack(list(similarity.values())), np.array(caching_error)
    return Calibration(
        blocks=tuple(block(name) for name in similarity),
        num_steps=matrices.shape[-1],
        num_runs=2,
        similarity=matrices,
        similarity_std=np.zeros_like(matrices),
        half_similarity=np.stack([matrices, matrices]),
        caching_error=errors,
        caching_error_std=np.zeros_like(errors),
        half_caching_error=np.stack([errors, errors]),
        fingerprint=Fingerprint(policy="by.Hand", block_names=tuple(similarity)),
    )
