"""Online rules against their published formulas, written out here, on what a wrapped DiT really computed.

No package at hand has TeaCache, AdaCache or BWCache for a model that is not on a list of its own. What the rule saw is
recorded beside the interceptors, and the formula decides anew from that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import bac
from bac.caching.estimators import Residual
from bac.published import AccumulatedChange, BlockChange, Codebook, OnlineRule, last_mask
from bac.published.block_ranges import Phase, block_ranges_schedule
from bac.recording import record_features
from tests.peers.models import NOISE, NUM_STEPS, DiT, blocks, chunk, described

pytest.importorskip("diffusers")
pytestmark = pytest.mark.slow

LAST = NUM_STEPS - 1


def relative_l1(now: Tensor, before: Tensor) -> float:
    return float((now - before).abs().mean() / before.abs().mean())


def updates_of(policy: DiT) -> list[int]:
    """Steps at which the last run computed everything; at all others it computed nothing."""
    mask = last_mask(policy)
    assert (mask.all(axis=1) == mask.any(axis=1)).all()
    return np.flatnonzero(mask.all(axis=1)).tolist()


def inputs_of_first_block(policy: DiT, rule: OnlineRule) -> list[Tensor]:
    """What the first attention receives at every step: the modulated input that TeaCache watches."""
    bac.wrap(policy, rule)
    seen: list[Tensor] = []
    watch = policy.model.transformer_blocks[0].attn1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    chunk(policy)
    watch.remove()
    return seen


def teacache(inputs: list[Tensor], threshold: float, polynomial: Callable[[float], float]) -> list[int]:
    """A grows by poly(|x - x before| / |x before|); compute where it reaches the threshold, then A = 0."""
    updates, accumulated = [0], 0.0
    for step in range(1, NUM_STEPS):
        accumulated += polynomial(relative_l1(inputs[step], inputs[step - 1]))
        if accumulated >= threshold or step == LAST:
            updates.append(step)
            accumulated = 0.0
    return updates


@pytest.mark.parametrize(
    ("threshold", "coefficients"), [(0.3, (1.0, 0.0)), (0.8, (1.0, 0.0)), (0.2, (3.0, -0.4, 0.7, 0.01))]
)
def test_accumulated_change_is_teacaches_rule(threshold: float, coefficients: tuple[float, ...]) -> None:
    policy = DiT()
    inputs = inputs_of_first_block(policy, AccumulatedChange(NUM_STEPS, threshold, coefficients))
    expected = teacache(inputs, threshold, lambda change: float(np.polyval(coefficients, change)))
    assert updates_of(policy) == expected
    assert 2 < len(expected) < NUM_STEPS


def outputs(policy: DiT, rule: OnlineRule) -> Tensor:
    """What every block returned, computed or reused, `[N, K, ...]`."""
    features = record_features(bac.wrap(policy, rule), NOISE)
    return torch.stack([features[block.name] for block in blocks(policy)])


def changes(features: Tensor, now: int, before: int) -> float:
    """Mean over blocks of the relative L1 change between two steps."""
    return float(np.mean([relative_l1(block[now], block[before]) for block in features]))


@pytest.mark.parametrize("book", [((0.1, 4), (0.2, 2)), ((0.05, 6), (0.12, 3), (0.2, 2))])
def test_the_codebook_is_adacaches_rule(book: tuple[tuple[float, int], ...]) -> None:
    policy = DiT()
    features = outputs(policy, Codebook(NUM_STEPS, book))
    updates = [0, 1]
    while updates[-1] != LAST:
        before, now = updates[-2:]
        rate = changes(features, now, before) / (now - before)
        interval = next((steps for limit, steps in book if rate < limit), 1)
        updates.append(min(now + interval, LAST))
    assert updates_of(policy) == updates
    assert 3 < len(updates) < NUM_STEPS


@pytest.mark.parametrize(("threshold", "interval"), [(0.15, 1), (0.25, 3)])
def test_block_change_is_bwcaches_rule(threshold: float, interval: int) -> None:
    policy = DiT()
    features = outputs(policy, BlockChange(NUM_STEPS, threshold, interval))
    updates = [0, 1]
    while updates[-1] != LAST:
        before, now = updates[-2:]
        reused = interval if changes(features, now, before) < threshold else 0
        updates.append(min(now + 1 + reused, LAST))
    assert updates_of(policy) == updates
    assert 3 < len(updates) < NUM_STEPS


def test_whole_layers_under_teacaches_rule_add_the_residual_of_the_last_update() -> None:
    policy = DiT()
    layers = policy.model.transformer_blocks
    rule = AccumulatedChange(NUM_STEPS, 0.3)
    bac.wrap(policy, bac.Denoising(schedule=rule, estimator=Residual()), blocks=policy.layers())
    entered: list[Tensor] = []
    left: list[Tensor] = []
    watches = [
        layers[0].register_forward_pre_hook(lambda _, args: entered.append(args[0])),
        layers[-1].register_forward_hook(lambda _, args, output: left.append(output)),
    ]
    chunk(policy)
    for watch in watches:
        watch.remove()
    updates = updates_of(policy)
    assert 2 < len(updates) < NUM_STEPS
    for step in range(NUM_STEPS):
        held = max(update for update in updates if update <= step)
        assert torch.allclose(left[step] - entered[step], left[held] - entered[held], atol=1e-5)


def test_held_front_layers_hand_on_the_stream_of_the_last_update_as_in_blockdance() -> None:
    policy = DiT()
    schedule = block_ranges_schedule(described(policy.layers()), [Phase(0, (), 1), Phase(4, range(2), 3)])
    bac.wrap(policy, schedule, blocks=policy.layers(), replay=False)
    entered: list[Tensor] = []
    watch = policy.model.transformer_blocks[2].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    chunk(policy)
    watch.remove()
    held = [0, 1, 2, 3, 4, 4, 4, 7, 7, 7, 10, 10]
    assert all(torch.equal(entered[step], entered[held[step]]) for step in range(NUM_STEPS))
