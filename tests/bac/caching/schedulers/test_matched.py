from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bac.caching.estimators import BlockStep, Hold, Taylor
from bac.caching.schedulers.matched import matched_schedule, update_steps
from bac.errors import ScheduleError
from tests.bac.statistics import calibration

NAMES = ["l0.self_attn", "l0.ffn"]


def gram_of(features):
    return features @ features.T / features.shape[1]


def error_of(features, steps, estimator):
    """Mean square error of every step's estimate, summed: by doing it."""
    state, total = None, 0.0
    for step, output in enumerate(torch.from_numpy(features)):
        if step in steps:
            state = estimator.store(state, BlockStep("b", step), None, output)
        else:
            total += (estimator.estimate(state, BlockStep("b", step), None) - output).square().mean().item()
    return total


@given(st.integers(2, 7).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k))), st.integers(0, 999))
def test_the_error_is_the_least_of_all_choices(size, seed):
    num_steps, num_updates = size
    features = np.random.default_rng(seed).normal(size=(num_steps, 5)).cumsum(axis=0)
    for order, estimator in ((0, Hold()), (1, Taylor(1))):
        found = update_steps(gram_of(features), num_updates, order)
        every = [(0, *rest) for rest in combinations(range(1, num_steps), num_updates - 1)]
        least = min(error_of(features, steps, estimator) for steps in every)
        assert error_of(features, found, estimator) == pytest.approx(least, abs=1e-9)


def test_a_line_needs_two_updates_and_then_none():
    line = np.arange(8.0)[:, None] * np.ones((1, 3))
    assert update_steps(gram_of(line), 2, order=1) == (0, 1)
    assert error_of(line, (0, 1), Taylor(1)) == pytest.approx(0.0)


def measured():
    features = np.random.default_rng(0).normal(size=(2, 6, 5)).cumsum(axis=1)
    by_hand = calibration({name: np.eye(6) for name in NAMES}, [0.0, 0.0])
    return replace(by_hand, gram=np.stack([gram_of(block) for block in features])), features


def test_together_the_sum_over_blocks_decides_and_the_schedule_says_for_what():
    statistics, features = measured()
    schedule = matched_schedule(statistics, 3)
    both = np.concatenate(list(features), axis=1)
    assert set(schedule.update_steps.values()) == {update_steps(gram_of(both), 3)}
    assert schedule.estimator == "taylor-1"
    assert matched_schedule(statistics, 3, order=0).estimator == "hold"


def test_apart_every_block_has_its_own_steps():
    statistics, features = measured()
    schedule = matched_schedule(statistics, 3, together=False, order=0)
    assert [schedule.update_steps[name] for name in NAMES] == [update_steps(gram_of(f), 3, 0) for f in features]


def test_what_cannot_be_is_refused():
    with pytest.raises(ScheduleError, match="has no gram; calibrate again"):
        matched_schedule(calibration({name: np.eye(6) for name in NAMES}, [0.0, 0.0]), 3)
    with pytest.raises(ScheduleError, match="order: must be 0"):
        update_steps(np.eye(4), 2, 2)
