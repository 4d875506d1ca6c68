"""A policy taken apart: its way in, and a chunk of noise of one's own."""

from __future__ import annotations

import torch

from bac.adapters import find_host
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs


def test_the_same_seed_draws_the_same_noise_and_leaves_the_random_state_alone():
    policy = TinyTransformerPolicy()
    host, before = find_host(policy), torch.get_rng_state()
    chunks = [host.predict_seeded(obs(2), seed) for seed in (3, 5, 3)]
    assert torch.equal(torch.get_rng_state(), before)
    for seed, chunk in zip((3, 5, 3), chunks, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(policy.predict_action_chunk(obs(2)), chunk)


def test_a_seeded_chunk_lies_between_two_resets_and_has_no_gradient():
    policy, resets = TickPolicy(num_steps=3), []
    policy.reset = lambda: resets.append(policy.ticks[0].num_computed)
    chunk = find_host(policy, policy.blocks()).predict_seeded({"obs": torch.zeros(1, 1)}, 0)
    assert (resets, chunk.item(), chunk.requires_grad) == ([0, 3], 1 + 2 + 3, False)


def test_a_policy_may_write_into_the_batch_it_is_given():
    policy, batch = TickPolicy(), {"obs": torch.zeros(1, 1)}
    blocks, predict = policy.blocks(), policy.predict_action_chunk
    policy.predict_action_chunk = lambda given: predict({"obs": given.pop("obs")})
    find_host(policy, blocks).predict_seeded(batch, 0)
    assert list(batch) == ["obs"]


def test_a_policy_with_a_reset_can_be_reset():
    assert find_host(TinyTransformerPolicy()).can_reset
