"""Sequential non-inferiority: promises kept at any stopping time, and enough power to be of use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.tuning.sequential import bounds, non_inferiority

COMPARISONS = 200
pytestmark = pytest.mark.slow


def pairs(rng, *, worse, better, n):
    """Paired differences of success: -1 with probability `worse`, +1 with `better`."""
    return rng.choice([-1.0, 0.0, 1.0], size=n, p=[worse, 1 - worse - better, better])


def verdicts(*, worse, better, n, margin=0.05, seed=0):
    rng = np.random.default_rng(seed)
    return [non_inferiority(pairs(rng, worse=worse, better=better, n=n), margin) for _ in range(COMPARISONS)]


def share(outcomes, verdict):
    return sum(outcome.verdict == verdict for outcome in outcomes) / len(outcomes)


def test_equal_successes_are_shown_after_as_few_pairs_as_any_test_could():
    # No valid test is sooner: a cache that fails 5 in 100 gets through 58 of 58 with 0.95^58 > 0.05.
    outcome = non_inferiority([0.0] * 200, 0.05)
    low, high = bounds(outcome.differences)
    assert outcome.verdict == "shown"
    assert 59 <= outcome.n <= 100
    assert -0.05 < low < 0 < high < 0.05


def test_always_worse_is_refuted_at_once():
    outcome = non_inferiority([-1.0] * 50, 0.05)
    assert outcome.verdict == "refuted"
    assert outcome.n <= 8  # 20 in wealth, doubled at most by each pair: not before the fifth
    assert bounds(outcome.differences)[1] < -0.05


def test_in_200_a_a_comparisons_hardly_one_is_refuted():
    # The same policy twice, with the noise of different draws: each fails where the other does not in 5 of 100.
    outcomes = verdicts(worse=0.05, better=0.05, n=400)
    assert share(outcomes, "refuted") <= 0.05
    assert share(outcomes, "shown") >= 0.3


def test_of_200_caches_worse_by_just_the_margin_hardly_one_is_shown():
    # Exactly on the border either verdict is an error with probability 0.05 at most; 0.095 is 3 sigma of 200 beyond.
    outcomes = verdicts(worse=0.10, better=0.05, n=400, seed=1)
    assert share(outcomes, "shown") <= 0.095
    assert share(outcomes, "refuted") <= 0.095


def test_a_cache_known_to_be_worse_is_refuted_within_100_pairs_on_average():
    # Success lower by 0.20: worse in 22 of 100 pairs, better in 2.
    outcomes = verdicts(worse=0.22, better=0.02, n=1000, seed=2)
    assert share(outcomes, "refuted") == 1.0
    assert np.mean([outcome.n for outcome in outcomes]) < 100


def test_a_cache_worse_by_a_tenth_is_refuted_too_but_takes_longer():
    # 0.13: about 100 pairs on average; 0.10: about 260.
    outcomes = verdicts(worse=0.11, better=0.01, n=1000, seed=3)
    assert share(outcomes, "refuted") >= 0.95
    assert share(outcomes, "shown") == 0.0


def test_looking_stops_at_the_verdict():
    seen = []

    def differences():
        for _ in range(50):
            seen.append(1)
            yield -1.0

    assert non_inferiority(differences(), 0.05).n == len(seen) < 50


def turns(rng, *, of_tasks, size, n):
    """Pairs of tasks that take turns in groups of `size`; each task's way succeeds and the policy's does so often."""
    rates = [rate for rate in of_tasks for _ in range(size)]
    seen = [rates[i % len(rates)] for i in range(n)]
    return [float(rng.random() < way) - float(rng.random() < own) for own, way in seen]


def test_where_tasks_take_turns_the_first_ones_do_not_decide_for_all():
    # Better on the first of two tasks, far worse on the second: .10 worse on average, twice the margin.
    found = {}
    for every in (1, 64):
        rng = np.random.default_rng(5)
        lists = [turns(rng, of_tasks=[(0.5, 0.8), (0.9, 0.4)], size=32, n=640) for _ in range(COMPARISONS)]
        found[every] = [non_inferiority(pairs, 0.05, every=every) for pairs in lists]
    assert share(found[1], "shown") > 0.5  # who looks in the middle of a turn sees the first task alone
    assert share(found[64], "shown") == 0.0
    assert all(outcome.n % 64 == 0 for outcome in found[64])


def test_the_bounds_too_look_after_whole_turns():
    assert bounds([1.0] * 5, every=6) == pytest.approx((-1, 1))
    assert bounds([1.0] * 6, every=6)[0] > bounds([1.0] * 3)[0] > -1
    with pytest.raises(ValueError, match="at least 1, got 0"):
        non_inferiority([0.0], 0.05, every=0)


def test_nothing_seen_is_undecided():
    outcome = non_inferiority([], 0.05)
    assert (outcome.verdict, outcome.n) == ("undecided", 0)
    assert bounds([]) == pytest.approx((-1, 1))


@settings(max_examples=30)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), max_size=60), st.sampled_from([0.02, 0.05, 0.2]))
def test_verdicts_and_bounds_agree(differences, margin):
    outcome = non_inferiority(differences, margin)
    low, high = bounds(outcome.differences)
    assert (outcome.verdict == "shown") == (low >= -margin - 1e-6)
    assert (outcome.verdict == "refuted") == (high <= -margin + 1e-6)


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1), max_size=40))
def test_swapping_the_methods_mirrors_the_bounds(differences):
    low, high = bounds(differences)
    assert bounds([-value for value in differences]) == pytest.approx((-high, -low), abs=1e-6)


def test_bounds_cover_the_mean_at_every_length_at_once():
    rng = np.random.default_rng(4)
    misses = 0
    for _ in range(100):
        low, _ = bounds(pairs(rng, worse=0.1, better=0.2, n=100))  # the best bound of all lengths up to 100
        misses += low > 0.1
    assert misses <= 11  # 3 sigma of 100 beyond 0.05


@pytest.mark.parametrize(("margin", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.05, 1.0)])
def test_what_cannot_be_promised_is_refused(margin, confidence):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
        non_inferiority([0.0], margin, confidence=confidence)


def test_a_difference_of_more_than_one_is_refused():
    with pytest.raises(ValueError, match=r"must be in \[-1, 1\], got 1.5"):
        non_inferiority([1.5], 0.05)
