"""Quantiles, rejection of busy samples, and the cost model."""

import gc

import pytest
import torch

from eval.measure.latency import measure, steps_within, summarise


def test_medians_and_speedups_are_of_clean_samples():
    samples = {
        "dense": [(0.4, 0.4), (0.5, 0.5), (0.6, 0.6), (9.0, 0.5)],
        "cached": [(0.1, 0.1), (0.1, 0.1), (0.1, 0.1), (0.1, 0.1)],
    }
    result = summarise(samples)
    assert (result["dense"].p50_ms, result["dense"].num_rejected, result["dense"].num_samples) == (500, 1, 4)
    assert result["cached"].speedup == pytest.approx(5.0)
    assert result["dense"].p95_ms == pytest.approx(590)
    assert result["dense"].clock == "wall"


def test_a_machine_that_is_always_busy_is_timed_by_the_cpu_clock():
    samples = {"dense": [(2.0, 1.0)] * 4, "cached": [(0.1, 0.1)] * 4}
    result = summarise(samples)
    assert (result["dense"].clock, result["cached"].clock) == ("cpu", "cpu")
    assert result["dense"].p50_ms == pytest.approx(1000)


def test_cells_are_interleaved_and_warmed_up():
    order = []
    measure({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3, progress=False)
    assert order == ["a", "b"] + ["a", "b"] * 3


def test_measuring_restores_threads_and_garbage_collection():
    before = torch.get_num_threads()
    seen = []
    measure({"a": lambda: seen.append((torch.get_num_threads(), gc.isenabled()))}, rounds=1, progress=False)
    assert seen == [(1, False)] * 2
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)


def test_steps_within_inverts_a_line():
    # latency(k) = 2 + 3 k: 23 ms buy exactly 7 steps, a hair less buys 6.
    assert steps_within(23.0, (4, 14.0), (20, 62.0)) == 7
    assert steps_within(22.999, (4, 14.0), (20, 62.0)) == 6
    assert steps_within(1.0, (4, 14.0), (20, 62.0)) == 1
    assert steps_within(1e6, (4, 14.0), (20, 62.0)) == 99


def test_a_measurement_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="machine is too busy"):
        steps_within(23.0, (4, 14.0), (20, 13.0))


def test_no_cells_is_refused():
    with pytest.raises(ValueError, match="at least one cell"):
        measure({}, rounds=1)
