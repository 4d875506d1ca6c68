from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.caching.schedulers.adaptive import adaptive_schedule, update_steps
from bac.errors import ScheduleError
from tests.bac.statistics import calibration


def worth(similarity: np.ndarray, steps: tuple[int, ...]) -> float:
    """The objective as the paper states it: each step's similarity to the update whose output it is given."""
    ends = (*steps[1:], len(similarity))
    return sum(similarity[a, t] for a, end in zip(steps, ends, strict=True) for t in range(a, end))


def best_by_brute_force(similarity: np.ndarray, num_updates: int) -> tuple[int, ...]:
    choices = [(0, *rest) for rest in combinations(range(1, len(similarity)), num_updates - 1)]
    return max(choices, key=lambda steps: worth(similarity, steps))


@settings(max_examples=150)
@given(st.integers(1, 9).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k))), st.integers(0, 2**32 - 1))
def test_update_steps_equal_brute_force(size, seed):
    num_steps, num_updates = size
    similarity = np.random.default_rng(seed).uniform(-1, 1, (num_steps, num_steps))
    assert update_steps(similarity, num_updates) == best_by_brute_force(similarity, num_updates)


def test_the_cut_lies_where_similarity_breaks():
    similarity = np.kron(np.eye(3), np.ones((4, 4)))  # three plateaus of four steps
    assert update_steps(similarity, 3) == (0, 4, 8)


def test_among_equals_the_earliest_cut_wins():
    assert update_steps(np.ones((6, 6)), 3) == (0, 1, 2)


def test_one_update_is_step_zero_and_all_updates_are_all_steps():
    similarity = np.random.default_rng(0).random((5, 5))
    assert update_steps(similarity, 1) == (0,)
    assert update_steps(similarity, 5) == (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_a_thousand_steps_24_blocks_and_50_updates_take_under_5_seconds_of_processor_time():
    similarities = np.random.default_rng(0).random((24, 1000, 1000))
    start = time.process_time()
    for similarity in similarities:
        assert len(update_steps(similarity, 50)) == 50
    assert time.process_time() - start < 5.0


@pytest.mark.parametrize("num_updates", [0, -1, 5])
def test_a_budget_out_of_range_is_refused(num_updates):
    with pytest.raises(ScheduleError, match=rf"num_updates: must be in \[1, 4\].*got {num_updates}"):
        update_steps(np.eye(4), num_updates)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (np.full((3, 3), np.nan), "must be finite, got 9 NaN"),
        (np.ones((3, 4)), r"square matrix \[K, K\], got shape \(3, 4\)"),
        (np.ones(3), "square"),
        (np.ones((0, 0)), "square"),
    ],
)
def test_a_matrix_that_is_no_similarity_is_refused(similarity, message):
    with pytest.raises(ScheduleError, match=message):
        update_steps(similarity, 1)


def test_adaptive_schedule_solves_each_block_on_its_own_then_bubbles_then_forces_the_last_steps():
    first = np.kron(np.eye(2), np.ones((3, 3)))  # attention breaks at 3
    second = np.array([[1.0, 0, 0, 0, 0, 0]] + [[0] + [1.0] * 5] * 5)  # FFN breaks at 1
    measured = calibration({"l0.self_attn": first, "l0.ffn": second}, caching_error=[2.0, 1.0])
    steps = {"l0.self_attn": (0, 3), "l0.ffn": (0, 1)}
    assert dict(adaptive_schedule(measured, 2, num_bubbled=0).update_steps) == steps
    bubbled = adaptive_schedule(measured, 2, num_bubbled=1)
    assert dict(bubbled.update_steps) == {"l0.self_attn": (0, 1, 3), "l0.ffn": (0, 1)}
    forced = adaptive_schedule(measured, 2, num_bubbled=0, force_last=1)
    assert dict(forced.update_steps) == {"l0.self_attn": (0, 3, 5), "l0.ffn": (0, 1, 5)}
    assert bubbled.fingerprint == measured.fingerprint
