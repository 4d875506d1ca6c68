"""`smolvla`: attention inlined in one method for all layers, residuals in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.caching.block import BlockKind
from bac.recording import record_features
from tests.contracts import AdapterContract
from tests.lerobot import models

pytestmark = pytest.mark.slow


class TestSmolVLA(AdapterContract):
    num_steps = 7
    blocks_per_layer = 2
    options: dict[str, Any] = {}
    takes_fewer_steps = True
    goes_into_eval_mode = True

    def make_policy(self) -> nn.Module:
        return models.smolvla(**self.options)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return models.observation(batch_size)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.config.num_steps = num_steps

    def in_real_time(self, policy: nn.Module) -> list[dict[str, Any]]:
        return models.in_real_time(policy)

    def test_attention_is_skipped_whole(self) -> None:
        policy, calls = self.make_policy(), {"forward_attn_layer": 0, "forward_cross_attn_layer": 0}
        host, model = find_host(policy), policy.model.vlm_with_expert
        for method in calls:
            _count(model, method, calls)
        bac.wrap(policy, self.schedule(policy, (0, 4)), replay=False)
        self.predict(policy)
        kinds = [block.kind for block in host.blocks]
        prefill = model.num_vlm_layers
        assert calls["forward_attn_layer"] == prefill + 2 * kinds.count(BlockKind.SELF_ATTENTION)
        without_expert = self.num_steps * (model.num_vlm_layers - model.num_expert_layers)
        assert calls["forward_cross_attn_layer"] == 2 * kinds.count(BlockKind.CROSS_ATTENTION) + without_expert


class TestSelfAttentionOnly(TestSmolVLA):
    options = {"attention_mode": "self_attn"}


class TestCrossAttentionOnly(TestSmolVLA):
    options = {"self_attn_every_n_layers": -1}


class TestExpertWithFewerLayers(TestSmolVLA):
    options = {"self_attn_every_n_layers": -1, "num_expert_layers": 2}


def test_trap_1_residuals_in_place_do_not_spoil_what_is_stored():
    policy = models.smolvla()
    host = find_host(policy)
    schedule = bac.Schedule(7, dict.fromkeys([block.name for block in host.blocks], (0,)))
    bac.wrap(policy, schedule, replay=False)
    features = record_features(policy, models.observation(2))
    for values in features.values():
        assert torch.equal(values, values[:1].expand_as(values))


def test_kinds_alternate_as_the_layers_do():
    kinds = [block.kind.value for block in find_host(models.smolvla()).blocks]
    assert kinds == ["self_attention", "feed_forward", "cross_attention", "feed_forward"] * 2


def _count(owner: nn.Module, method: str, calls: dict[str, int]) -> None:
    original = getattr(owner, method)

    def counted(*inputs: Any, **options: Any) -> Any:
        calls[method] += 1
        return original(*inputs, **options)

    vars(owner)[method] = counted
