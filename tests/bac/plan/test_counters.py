"""A number that runs change and decide by keeps them from being replayed; one that they only change does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bac
import bac.plan
from bac.caching.block import Block, BlockKind
from tests.bac.plan.runs import FIRST
from tests.bac.plan.test_guard import Sum, chunk

ORDINARY = 6.0


class Counting(Sum):
    """Counts its calls, and does with the count what `decide` does."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls, self.last, self.step = 0, 0, 0

    def decide(self, x: Tensor) -> Tensor:
        return x

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        self.num_calls += 1
        return self.decide(super().predict_action_chunk(batch))


class ByThreshold(Counting):
    def decide(self, x):
        return x + 1 if self.num_calls > 50 else x


class ByRemainder(Counting):
    def decide(self, x):
        return x + 1 if self.num_calls % 50 == 0 else x


class ByLocalVariable(Counting):
    def decide(self, x):
        num_calls = self.num_calls
        return x + 1 if num_calls > 50 else x


class ByFunction(Counting):
    def decide(self, x):
        return x + max(self.num_calls, 50) - 50


class Storing(Counting):
    def decide(self, x):
        self.last = 2 * self.num_calls + 1
        self.num_calls = self.num_calls + 1
        return x


class Restarting(Counting):
    """Sets its number anew in every run, as a noise scheduler does."""

    def decide(self, x):
        self.step = 0
        while self.step < 2:
            self.step += 1
        return x


def wrapped(policy: Sum) -> Sum:
    return bac.wrap(policy, blocks=[Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)


@pytest.mark.parametrize("kind", [ByThreshold, ByRemainder, ByLocalVariable, ByFunction])
def test_a_run_that_decides_by_what_it_counts_is_interpreted(kind):
    policy = wrapped(kind())
    with pytest.warns(RuntimeWarning, match=rf"changes a number that the next run reads: {kind.__name__}\.num_calls"):
        assert chunk(policy) == ORDINARY
    while policy.num_calls < 49:
        assert chunk(policy) == ORDINARY
    assert max(chunk(policy) for _ in range(2)) == ORDINARY + 1


@pytest.mark.parametrize("kind", [Counting, Storing, Restarting])
def test_a_run_that_only_counts_is_replayed(kind):
    policy = wrapped(kind())
    assert [chunk(policy) for _ in range(3)] == [ORDINARY] * 3
    assert len(bac.plan.plans(policy)) == 1
    with torch.no_grad():
        assert bac.plan.record(policy, {"obs": torch.ones(1, 1)}) in bac.plan.plans(policy)
