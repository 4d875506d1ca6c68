"""SmoothCache's own package (PyPI dit-smoothcache): reuse of single branches by a static mask."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch

import bac
from bac.caching.schedulers.mask import mask_schedule
from tests.peers.models import NUM_STEPS, DiT, blocks, chunk, described, under

with contextlib.redirect_stdout(io.StringIO()):  # it prints which of its parts it did not find
    SmoothCache = pytest.importorskip("SmoothCache")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_random_masks_of_single_branches_equal_smoothcache(share: float) -> None:
    from diffusers.models.attention import BasicTransformerBlock

    policy = DiT()
    found = blocks(policy)
    mask = np.random.default_rng(int(10 * share)).random((NUM_STEPS, len(found))) < share
    mask[0] = True
    rows = {}
    for block, column in zip(found, mask.T, strict=True):
        _, index, branch = block.name.split(".")
        rows[f"{branch}-{index}"] = column.astype(int).tolist()

    def apply(model: Any) -> None:
        SmoothCache.SmoothCacheHelper(model, BasicTransformerBlock, ["attn1", "ff"], rows).enable()

    theirs = under(policy, apply)
    assert torch.equal(chunk(bac.wrap(policy, mask_schedule(described(found), mask), replay=False)), theirs)
