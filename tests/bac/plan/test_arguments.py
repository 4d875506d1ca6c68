"""Arguments of a sampler that a plan depends on, and plans that are out of date."""

from __future__ import annotations

import torch

import bac
import bac.plan
from bac.caching.block import BlockKind
from tests.bac.plan.runs import FIRST
from tests.bac.plan.test_guard import Settings, Sum, chunk, wrapped


class Signed(Sum):
    def predict_action_chunk(self, batch, sign=0.0):
        return super().predict_action_chunk(batch) * (-1 if str(sign).startswith("-") else 1)


def signed(policy, sign):
    with torch.no_grad():
        return policy.predict_action_chunk({"obs": torch.ones(1, 1)}, sign).item()


def test_minus_zero_is_another_argument_than_zero():
    policy = Signed()
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    assert [signed(policy, sign) for sign in (0.0, 0.0, -0.0, -0.0, 0.0)] == [6, 6, -6, -6, 6]
    assert len(bac.plan.plans(policy)) == 2


class Guided(Sum):
    def predict_action_chunk(self, batch, guidance=None):
        return super().predict_action_chunk(batch) * guidance.scale


def test_an_object_among_the_arguments_is_watched():
    policy, guidance = Guided(), Settings()
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    assert [signed(policy, guidance) for _ in range(3)] == [6, 6, 6]
    guidance.scale = 2.0
    assert [signed(policy, guidance) for _ in range(3)] == [12, 12, 12]


def test_arguments_that_differ_at_every_chunk_are_told_of(caplog):
    policy = Signed()
    replay = bac.Replay(record="second")
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=replay)
    with caplog.at_level("WARNING", logger="bac.plan"):
        assert [signed(policy, 0.1 * index) for index in range(70)] == [6] * 70
    assert caplog.text.count("its arguments differ at every chunk") == 1


def test_a_plan_recorded_ahead_tells_when_it_is_out_of_date(caplog):
    policy = wrapped(bac.Replay(record="ahead"))
    with torch.no_grad():
        bac.plan.record(policy, {"obs": torch.ones(1, 1)})
    assert chunk(policy) == 6
    policy.factors[0] = 2.0
    with caplog.at_level("WARNING", logger="bac.plan"):
        assert [chunk(policy), chunk(policy)] == [10, 10]
    assert caplog.text.count("record it again: bac.plan.record(policy, batch)") == 1
