"""A bounded soak of plans, and the command that measures what their check costs."""

from __future__ import annotations

import pytest

from eval.experiments.plans import guard_cost
from eval.experiments.plans.changes import CHANGES
from eval.experiments.plans.soak import soak
from tests.bac.models import obs
from tests.bac.plan.runs import pair


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot be replayed:RuntimeWarning")
@pytest.mark.parametrize("seed", [7, 11])
def test_no_chunk_is_stale_or_foreign_whatever_is_changed(seed):
    outcome = soak(1000, seed, minutes=0.2, look_every=20)
    assert outcome.stale == outcome.foreign == []
    assert outcome.num_replayed >= 3
    assert set(outcome.changes) & set(CHANGES)
    assert outcome.growth_mb < 20


def test_the_check_is_timed_after_chunks_that_are_replayed():
    policy = pair()[1]
    found = guard_cost.measure(policy, obs(2), rounds=2, before=None)
    assert found["replays"] == found["rounds"] == 2
    assert 0 < found["now_share"] < 1
