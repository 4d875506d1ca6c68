"""`bac.tune` may choose a coarser precision within an action error, and only there."""

from __future__ import annotations

import pytest

import bac
from bac.errors import ScheduleError
from bac.precision import BF16
from bac.tuning import BudgetError
from bac.tuning.bench import Bench, Quantiles
from tests.bac.models import TinyTransformerPolicy, obs

OPTIONS = {"replay": False, "rounds": 2, "evaluations": 0, "sweeps": (3,), "progress": False}
BATCHES = [obs(2, seed) for seed in range(4)]


@pytest.fixture
def timed_as_if_bf16_were_faster(monkeypatch):
    """Latencies of a machine on which every way takes a second, and half of one in bf16."""

    def latencies(self, ways, rounds):
        seconds = [0.5 if way.precision == BF16 else 1.0 for way in ways]
        return [Quantiles(value, value) for value in seconds]

    monkeypatch.setattr(Bench, "latencies", latencies)


def tuned(largest_error: float) -> bac.Denoising:
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    return bac.tune(policy, BATCHES, max_action_error=largest_error, precisions=[BF16], **OPTIONS).denoising


def test_a_faster_precision_that_keeps_the_error_is_chosen(timed_as_if_bf16_were_faster):
    assert tuned(10.0).precision == BF16


def test_a_precision_that_is_too_coarse_is_not_chosen(timed_as_if_bf16_were_faster):
    assert tuned(1e-9).precision == "as loaded"


def test_a_slower_precision_is_not_chosen(monkeypatch):
    monkeypatch.setattr(
        Bench, "latencies", lambda self, ways, rounds: [Quantiles(1.0 + (way.precision == BF16), 2.0) for way in ways]
    )
    assert tuned(10.0).precision == "as loaded"


def test_a_precision_under_a_latency_is_refused():
    with pytest.raises(BudgetError, match="within an action error; give max_action_error= instead of target_hz=25"):
        bac.tune(TinyTransformerPolicy(num_steps=6), BATCHES, target_hz=25, precisions=[BF16], **OPTIONS)


def test_an_unknown_precision_is_refused_before_the_work():
    with pytest.raises(ScheduleError, match="must be one of"):
        bac.tune(TinyTransformerPolicy(num_steps=6), BATCHES, max_action_error=1.0, precisions=["fp4"], **OPTIONS)
