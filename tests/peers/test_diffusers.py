"""The caches that ship with diffusers, on the same tiny models and the same noise.

Where a test allows a difference it is rounding: their TaylorSeer divides by the gap and multiplies by the distance, we
scale the difference once; their residual of several layers is one difference, ours is added up layer by layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bac
from bac.caching.block import BlockKind
from bac.caching.estimators import Hold, Residual, Taylor
from bac.caching.schedulers.mask import mask_schedule
from bac.published import FirstBlock, last_mask
from bac.published.by_kind import by_kind_schedule
from tests.peers.models import NUM_STEPS, DiT, Flux, blocks, chunk, described, under

hooks = pytest.importorskip("diffusers.hooks")
pytestmark = pytest.mark.slow

ROUNDING = 2e-5  # of numbers of size 1 to 10, over 12 steps


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=ROUNDING, atol=ROUNDING)


def taylorseer(order: int, interval: int, warm_up: int, names: str) -> Any:
    return lambda model: hooks.apply_taylorseer_cache(
        model,
        hooks.TaylorSeerCacheConfig(
            cache_interval=interval,
            disable_cache_before_step=warm_up,
            max_order=order,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=[names],
        ),
    )


def seers_steps(interval: int, warm_up: int) -> np.ndarray:
    """When TaylorSeer computes: in the warm-up, then one step after it and at every interval from there."""
    steps = np.arange(NUM_STEPS)
    return (steps < warm_up) | ((steps - warm_up - 1) % interval == 0)


@pytest.mark.parametrize(("order", "interval", "warm_up"), [(0, 3, 1), (1, 3, 3), (2, 4, 3), (3, 3, 4)])
def test_taylor_equals_taylorseer(order: int, interval: int, warm_up: int) -> None:
    policy = DiT()
    found = blocks(policy)
    names = r"transformer_blocks\.\d+\.(attn1|ff)"
    theirs = under(policy, taylorseer(order, interval, warm_up, names), in_context=True)
    mask = np.repeat(seers_steps(interval, warm_up)[:, None], len(found), axis=1)
    schedule = mask_schedule(described(found), mask)
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(order) if order else Hold()), replay=False)
    ours = chunk(policy)
    assert close(ours, theirs)
    assert order or torch.equal(ours, theirs)


def test_taylor_equals_taylorseer_on_layers_of_two_streams_and_of_one() -> None:
    policy = Flux()
    found = blocks(policy)
    names = r"(transformer_blocks\.\d+\.(attn|ff|ff_context))|(single_transformer_blocks\.\d+\.proj_out)"
    theirs = under(policy, taylorseer(1, 3, 2, names), in_context=True)
    mask = np.repeat(seers_steps(3, 2)[:, None], len(found), axis=1)
    schedule = mask_schedule(described(found), mask)
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(1)), replay=False)
    assert close(chunk(policy), theirs)


def test_taylor_forecasts_both_streams_of_joint_attention_as_taylorseer_does() -> None:
    policy = Flux()
    found = blocks(policy)
    theirs = under(policy, taylorseer(1, 4, 3, r"transformer_blocks\.\d+\.attn"), in_context=True)
    joint = np.array([block.name.endswith(".attn") for block in found])
    mask = seers_steps(4, 3)[:, None] | ~joint
    schedule = mask_schedule(described(found), mask)
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(1)), replay=False)
    assert close(chunk(policy), theirs)


@pytest.mark.parametrize("make", [DiT, Flux])
def test_by_kind_equals_pyramid_attention_broadcast(make: Any) -> None:
    policy = make()
    # Joint attention only: in Flux's other layers attention shares its projection with the feed-forward.
    identifier = r"^transformer_blocks"
    theirs = under(
        policy,
        lambda model: hooks.apply_pyramid_attention_broadcast(
            model,
            hooks.PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=3,
                spatial_attention_timestep_skip_range=(-1, 1001),
                spatial_attention_block_identifiers=(identifier,),
                current_timestep_callback=lambda: 500,
            ),
        ),
    )
    schedule = by_kind_schedule(described(blocks(policy)), {BlockKind.SELF_ATTENTION: 3})
    assert torch.equal(chunk(bac.wrap(policy, schedule, replay=False)), theirs)


@pytest.mark.parametrize("threshold", [0.12, 0.2, 0.35])
def test_first_block_equals_first_block_cache(threshold: float) -> None:
    policy = DiT()
    computed: list[int] = []

    def apply(model: Any) -> None:
        model.transformer_blocks[2].attn1.register_forward_hook(lambda *_: computed.append(len(heads) - 1))
        heads: list[int] = []
        model.transformer_blocks[0].attn1.register_forward_hook(lambda *_: heads.append(0))
        hooks.apply_first_block_cache(model, hooks.FirstBlockCacheConfig(threshold=threshold))

    theirs = under(policy, apply, in_context=True)
    rule = FirstBlock(NUM_STEPS, threshold)
    bac.wrap(policy, bac.Denoising(schedule=rule, estimator=Residual()), blocks=policy.layers())
    ours = chunk(policy)
    mask = last_mask(policy)
    assert mask[:, 0].all()
    assert np.flatnonzero(mask[:, 2]).tolist() == computed
    assert 1 < len(computed) < NUM_STEPS
    assert close(ours, theirs)


def test_a_mask_of_whole_layers_equals_magcache_at_the_steps_it_computes() -> None:
    policy = DiT()
    computed: list[int] = []

    def apply(model: Any) -> None:
        steps = iter(range(NUM_STEPS))
        model.pos_embed.register_forward_hook(lambda *_: now.append(next(steps)))
        now: list[int] = []
        model.transformer_blocks[2].attn1.register_forward_hook(lambda *_: computed.append(now[-1]))
        ratios = [1.0 - 0.01 * (step % 5) for step in range(NUM_STEPS)]
        config = hooks.MagCacheConfig(threshold=0.06, num_inference_steps=NUM_STEPS, mag_ratios=ratios)
        hooks.apply_mag_cache(model, config)

    theirs = under(policy, apply)
    layers = policy.layers()
    mask = np.repeat(np.isin(np.arange(NUM_STEPS), computed)[:, None], len(layers), axis=1)
    schedule = mask_schedule(described(layers), mask)
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Residual()), blocks=layers, replay=False)
    assert 2 < len(computed) < NUM_STEPS
    assert close(chunk(policy), theirs)


@pytest.mark.parametrize("make", [DiT, Flux])
def test_where_nothing_is_skipped_all_agree_with_the_untouched_model(make: Any) -> None:
    policy = make()
    dense = chunk(policy)
    all_of_it = np.ones((NUM_STEPS, len(blocks(policy))), dtype=bool)
    schedule = mask_schedule(described(blocks(policy)), all_of_it)
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(2)), replay=False)
    assert torch.equal(chunk(policy), dense)
    theirs = under(
        make(), lambda m: hooks.apply_first_block_cache(m, hooks.FirstBlockCacheConfig(0.0)), in_context=True
    )
    assert torch.equal(theirs, dense)
