"""Which calls are timed, in which order, and what is left as it was."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
import torch

from bac.tuning.timing import in_turns, interleaved, timed


def test_a_call_is_warmed_up_and_then_timed():
    calls = []
    samples = timed(lambda: calls.append(0), 5, warm_up=2)
    assert (len(calls), len(samples)) == (7, 5)
    assert all(sample.wall_s > 0 and sample.cpu_s >= 0 for sample in samples)


def test_every_round_makes_each_call_once():
    calls = []
    found = interleaved({name: (lambda name=name: calls.append(name)) for name in "ab"}, 3, warm_up=2)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert {name: len(samples) for name, samples in found.items()} == {"a": 3, "b": 3}


def test_ways_that_exclude_each_other_take_turns_each_in_its_context():
    events = []

    @contextmanager
    def way(name):
        events.append(f"{name}(")
        yield lambda: events.append(name)
        events.append(")")

    found = in_turns({name: (lambda name=name: way(name)) for name in "ab"}, 3)
    assert (
        "".join(events) == "a(aaaaa)b(bbbbb)" * 2
    )  # three calls warm up, two are timed; of four samples three are kept
    assert {name: len(samples) for name, samples in found.items()} == {"a": 3, "b": 3}


def test_calls_are_timed_without_gradients_and_collection_and_both_come_back():
    seen = []
    timed(lambda: seen.append((torch.is_inference_mode_enabled(), gc.isenabled())), 1, warm_up=0)
    assert seen == [(True, False)]
    with pytest.raises(KeyError):
        timed(lambda: {}["absent"], 1)
    assert gc.isenabled() and not torch.is_inference_mode_enabled() and gc.get_freeze_count() == 0
