from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bac.caching.schedulers.paths import cheapest, cheapest_by_pairs, least_worst
from bac.errors import ScheduleError

SIZES = st.integers(2, 6).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k), st.integers(0, 10**6)))


def paths(num_steps, num_updates):
    return [(0, *rest) for rest in combinations(range(1, num_steps), num_updates - 1)]


def edges(steps, num_steps):
    return list(zip(steps, (*steps[1:], num_steps), strict=True))


def costs(seed, *shape):
    return np.random.default_rng(seed).integers(0, 9, shape).astype(float)


@given(SIZES)
def test_cheapest_equals_brute_force(size):
    num_steps, num_updates, seed = size
    cost = costs(seed, num_steps, num_steps + 1)

    def price(steps):
        return sum(cost[edge] for edge in edges(steps, num_steps))

    found = cheapest(cost, num_updates)
    assert len(found) == num_updates
    assert price(found) == min(map(price, paths(num_steps, num_updates)))


@given(SIZES)
def test_least_worst_is_lexicographic(size):
    num_steps, num_updates, seed = size
    cost = costs(seed, num_steps, num_steps + 1)

    def ordered(steps):
        return sorted((cost[edge] for edge in edges(steps, num_steps)), reverse=True)

    assert ordered(least_worst(cost, num_updates)) == min(map(ordered, paths(num_steps, num_updates)))


@given(SIZES)
def test_cheapest_by_pairs_equals_brute_force(size):
    num_steps, num_updates, seed = size
    cost, first = costs(seed, num_steps, num_steps, num_steps + 1), costs(seed + 1, num_steps + 1)

    def price(steps):
        following = zip(steps, steps[1:], (*steps[2:], num_steps), strict=False)
        return first[(*steps, num_steps)[1]] + sum(cost[triple] for triple in following)

    found = cheapest_by_pairs(cost, first, num_updates)
    assert (found[0], len(found)) == (0, num_updates)
    assert price(found) == min(map(price, paths(num_steps, num_updates)))


def test_a_dear_edge_is_avoided():
    # Reuse across step 2 is dear: an update must fall on it.
    cost = np.array([[99.0 if i < 2 < j else 1.0 for j in range(5)] for i in range(4)])
    assert cheapest(cost, 2) == least_worst(cost, 2) == (0, 2)


@pytest.mark.parametrize("number", [0, 4])
def test_a_number_out_of_range_is_refused(number):
    with pytest.raises(ScheduleError, match=r"num_updates: must be in \[1, 3\]"):
        cheapest(np.zeros((3, 4)), number)
    with pytest.raises(ScheduleError, match=r"num_updates: must be in \[1, 3\]"):
        cheapest_by_pairs(np.zeros((3, 3, 4)), np.zeros(4), number)


def test_another_shape_is_refused():
    with pytest.raises(ScheduleError, match=r"cost: must be of shape \[K, K \+ 1\]"):
        least_worst(np.zeros((3, 3)), 1)
