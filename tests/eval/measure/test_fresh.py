"""Wall-clock latency in a fresh process."""

import os
import time
from functools import partial

import pytest

from eval.measure.fresh import WARM_UP, fresh_latency

pytestmark = pytest.mark.slow


def busy_every_third_time():
    """A call that takes 20 ms, and every third time 200 ms."""
    calls = []

    def call():
        calls.append(0)
        time.sleep(0.2 if len(calls) % 3 == 0 else 0.02)

    return call


def remember_the_process(path):
    path.write_text(str(os.getpid()))
    return lambda: None


def test_samples_of_a_busy_machine_count():
    latency = fresh_latency(busy_every_third_time, rounds=9)
    assert latency["p50_ms"] < 200 <= latency["p95_ms"]


def test_it_runs_in_a_process_of_its_own(tmp_path):
    fresh_latency(partial(remember_the_process, tmp_path / "process"), rounds=1)
    assert int((tmp_path / "process").read_text()) != os.getpid()
    assert WARM_UP > 0
