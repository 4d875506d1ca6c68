"""A sampler whose first call after a reset differs is replayed at the later ones, and only there."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import bac
import bac.plan
from bac.caching.block import Block, BlockKind
from bac.errors import RunError
from tests.bac.plan.runs import FIRST
from tests.bac.plan.test_guard import Sum, chunk

ORDINARY, AT_FIRST = 6.0, 106.0


class Starting(Sum):
    """Adds 100 at the first call after a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.first = True

    def reset(self) -> None:
        self.first = True

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        x = super().predict_action_chunk(batch)
        if self.first:
            x = x + 100
        self.first = False
        return x


class Alternating(Sum):
    """Adds 100 at every other call."""

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        self._private = 3.0 - self._private
        return super().predict_action_chunk(batch)


def wrapped(policy: Sum, replay: bac.Replay = FIRST) -> Sum:
    return bac.wrap(policy, blocks=[Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=replay)


def test_a_first_call_is_interpreted_and_the_next_chunk_is_recorded(caplog):
    policy = wrapped(Starting())
    with caplog.at_level("INFO", logger="bac.plan"):
        assert chunk(policy) == AT_FIRST
    assert "its first call differs from the next ones, so a later chunk is recorded" in caplog.text
    assert bac.plan.plans(policy) == ()
    policy.first = False
    assert [chunk(policy), chunk(policy)] == [ORDINARY] * 2
    assert len(bac.plan.plans(policy)) == 1


@pytest.mark.parametrize("replay", [FIRST, True, bac.Replay(record="ahead")])
def test_a_plan_outlives_resets_that_the_next_run_undoes(replay):
    policy = wrapped(Starting(), replay)
    if replay is not True and replay.record == "ahead":
        with torch.no_grad():
            bac.plan.record(policy, {"obs": torch.ones(1, 1)})
    else:
        policy.first = False
        assert [chunk(policy), chunk(policy)] == [ORDINARY] * 2
    (plan,) = bac.plan.plans(policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(30):
            policy.reset()
            assert [chunk(policy) for _ in range(3)] == [AT_FIRST, ORDINARY, ORDINARY]
    assert bac.plan.plans(policy) == (plan,)


def test_a_plan_is_not_taken_back_if_something_else_changed_with_the_flag():
    policy = wrapped(Starting())
    policy.first = False
    assert chunk(policy) == ORDINARY
    policy.reset()
    policy.factors[0] = 2.0
    assert [chunk(policy) for _ in range(3)] == [AT_FIRST + 4, ORDINARY + 4, ORDINARY + 4]


def test_a_sampler_whose_calls_all_differ_is_refused():
    policy = wrapped(Alternating())
    with pytest.warns(RuntimeWarning, match="cannot be replayed"):
        chunk(policy)
    assert sorted([chunk(policy), chunk(policy)]) == [6.0, 10.0]
    with pytest.raises(RunError, match="cannot be replayed"), pytest.warns(RuntimeWarning), torch.no_grad():
        bac.plan.record(policy, {"obs": torch.ones(1, 1)})
