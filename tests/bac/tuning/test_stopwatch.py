"""The stopwatch on a bench whose clock is written down beforehand: a hiccup does not decide, a slow way does."""

import pytest

import bac
from bac.tuning.bench import Quantiles
from bac.tuning.stopwatch import Stopwatch

THREE, FOUR = bac.Denoising(num_steps=3), bac.Denoising(num_steps=4)
USUAL, HICCUP = Quantiles(0.036, 0.038), Quantiles(0.145, 0.150)


class Bench:
    """Reads latencies off a list, and keeps what was asked for."""

    def __init__(self, *looks):
        self.looks, self.asked = list(looks), []

    def latencies(self, ways, rounds):
        self.asked.append(list(ways))
        return list(self.looks.pop(0))


def test_what_is_expected_is_believed_at_once():
    bench = Bench([USUAL])
    watch = Stopwatch(bench, 9)
    assert watch.time(FOUR, expected_s=0.036, limit_s=0.040) == USUAL
    assert (len(bench.asked), watch.notes) == (1, [])


def test_a_hiccup_is_looked_at_again_beside_a_known_way():
    bench = Bench([Quantiles(0.027, 0.028)], [HICCUP], [USUAL, Quantiles(0.027, 0.028)])
    watch = Stopwatch(bench, 9)
    watch.time(THREE, expected_s=0.027, limit_s=0.040)
    assert watch.time(FOUR, expected_s=0.036, limit_s=0.040) == USUAL
    assert bench.asked[2] == [FOUR, THREE]
    assert watch.notes == [
        "timed again: own solver, 4 steps took 145.0 ms (p95 150.0) where 36.0 ms were expected, "
        "and 36.0 ms (p95 38.0) the second time, while own solver, 3 steps took 1.00 times its earlier time"
    ]


def test_a_way_that_is_slow_twice_is_slow():
    assert Stopwatch(Bench([HICCUP], [HICCUP]), 9).time(FOUR, expected_s=0.036, limit_s=0.040) == HICCUP


def test_a_single_late_call_is_a_reason_to_look_again():
    late = Quantiles(0.036, 0.090)
    assert Stopwatch(Bench([late], [USUAL]), 9).time(FOUR, expected_s=0.036, limit_s=0.040) == USUAL


@pytest.mark.parametrize(("now", "is_busy"), [(0.028, False), (0.054, True)])
def test_a_busy_machine_is_named(now, is_busy):
    bench = Bench([Quantiles(0.027, 0.028)], [HICCUP], [HICCUP, Quantiles(now, now)])
    watch = Stopwatch(bench, 9)
    watch.time(THREE, expected_s=0.027, limit_s=0.040)
    watch.time(FOUR, expected_s=0.036, limit_s=0.040)
    assert ("the machine is busy" in watch.notes[0]) == is_busy
