"""Bootstrap intervals against a formula, and their pairing."""

import numpy as np
import pytest

from eval.measure.bootstrap import bootstrap


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    episodes = np.repeat([[0.0], [1.0]], 100, axis=0)  # standard error sqrt(0.25 / 200)
    estimate = bootstrap(lambda rows: float(rows.mean()), episodes)
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.5 - 1.96 * 0.0354, abs=0.01)
    assert estimate.high == pytest.approx(0.5 + 1.96 * 0.0354, abs=0.01)


def test_pairs_stay_together():
    first = np.arange(13.0)
    estimate = bootstrap(lambda rows: float((rows[:, 1] - rows[:, 0]).mean()), np.stack([first, first + 2], axis=1))
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 2.0, 2.0)


def test_the_same_episodes_give_the_same_interval():
    episodes = np.random.default_rng(3).random((17, 1))
    assert bootstrap(lambda rows: rows.mean(), episodes) == bootstrap(lambda rows: rows.mean(), episodes)
