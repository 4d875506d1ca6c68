"""The control loop beside one that only sleeps."""

import pytest

from eval.loop import BusyPolicy, compare

pytestmark = pytest.mark.slow


def test_both_loops_run_at_the_same_time():
    statistics, bare = compare(control_hz=50, num_steps=50, policy_s=0.005, chunk_steps=8, progress=False)
    assert statistics.num_steps + statistics.missed_deadlines >= 50
    assert statistics.latency_s.p50 >= 0.005
    assert bare.missed_deadlines >= 0
    assert 0 <= bare.jitter_s.p50 <= bare.jitter_s.max


def test_the_policy_is_busy_for_as_long_as_it_says():
    import time

    begun = time.perf_counter()
    chunk = BusyPolicy(0.02, 3).predict_action_chunk(None)
    assert time.perf_counter() - begun >= 0.02
    assert chunk.shape == (1, 3, 1)
