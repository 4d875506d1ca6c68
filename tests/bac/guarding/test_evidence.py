"""Evidence, probes and calibrated limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bac
from bac.caching.interceptors.patch import interceptors
from bac.errors import CalibrationError, ScheduleError
from bac.guarding import Guard, calibrate
from bac.guarding.evidence import STAKES, Evidence, allowed_share
from bac.guarding.probe import Probe
from bac.published import PreviousChunk
from tests.bac.guarding.models import (
    HELD,
    TWICE,
    RampPolicy,
    calibrated,
    drift,
)

# Evidence


def test_evidence_begins_anew_whenever_it_is_lost():
    evidence = Evidence(0.5)
    assert evidence.value == 0
    for _ in range(30):
        evidence.add(0.0)
        assert evidence.value == pytest.approx(1 - STAKES.mean())
    evidence.add(1.0)
    assert evidence.value == pytest.approx(1 + STAKES.mean())


def test_at_the_allowed_share_evidence_stays_where_it_is():
    evidence = Evidence(0.25)
    for _ in range(9):
        evidence.add(0.25)
    assert evidence.value == pytest.approx(1)


@pytest.mark.parametrize("cells", [1, 8])
def test_the_mean_time_to_a_false_alarm_is_at_least_what_is_promised(cells):
    generator, patience, times = np.random.default_rng(0), 10, []
    for _ in range(60):
        evidence, looks = Evidence(0.2), 0
        while evidence.value < patience and looks < 200:
            evidence.add(float(np.mean(generator.random(cells) < 0.2)))
            looks += 1
        times.append(looks)
    assert np.mean(times) >= patience


def test_a_drift_to_exceeding_everywhere_is_found_within_three_looks():
    evidence = Evidence(0.035)
    for _ in range(1000):
        evidence.add(0.0)
    for _ in range(3):
        evidence.add(1.0)
    assert evidence.value >= 1000


@settings(max_examples=30)
@given(st.integers(1, 300), st.floats(0.5, 0.999))
def test_the_largest_of_n_is_exceeded_as_wilks_says(n, confidence):
    assert allowed_share(n, n, confidence=confidence) == pytest.approx(1 - (1 - confidence) ** (1 / n), abs=1e-9)


@settings(max_examples=20)
@given(st.integers(2, 40), st.data())
def test_a_lower_rank_may_be_exceeded_more_often_than_its_share(n, data):
    rank = data.draw(st.integers(1, n - 1))
    assert 1 - rank / n < allowed_share(n, rank) < 1
    assert allowed_share(n, rank + 1) < allowed_share(n, rank)


def test_many_runs_are_no_trouble():
    # P(Binomial(n, p) <= n - rank) for thousands of runs has terms beyond what a float holds.
    assert allowed_share(13_000, 12_870) == pytest.approx(0.0122, abs=1e-4)
    assert 0.5 < allowed_share(20_000, 10_000) < 0.51


# Probes


def test_an_error_is_relative_and_by_sample_and_the_worst_of_the_contexts():
    probe = Probe([("a", 1)])
    computed = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    probe.compare("a", 1, computed + torch.tensor([[1.0, 0.0], [0.0, 0.0]]), computed)
    probe.compare("a", 1, (computed + 1, None), (computed, None))
    assert probe.errors()["a", 1].tolist() == [0.5, 0.5]
    assert Probe([]).errors() == {}


def test_the_batch_may_be_another_dimension():
    probe = Probe([("a", 1)], batch_dim=1)
    probe.compare("a", 1, torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    assert probe.errors()["a", 1].tolist() == [0, 0.5]


def test_an_error_from_nothing_is_infinite():
    probe = Probe([("a", 1)])
    probe.compare("a", 1, torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1))
    assert probe.errors()["a", 1].tolist() == [0, np.inf]


# Calibration


def test_limits_are_the_errors_of_the_cached_run():
    policy = RampPolicy()
    guard = calibrated(policy)
    assert guard.limits["ramp"][0] is None
    assert guard.limits["ramp"][1:] == pytest.approx((1 / 5, 1 / 3, 3 / 7), rel=1e-3)
    assert guard.num_runs == 100
    assert guard.allowed == pytest.approx(allowed_share(100, 99))
    assert guard.action_range == ((4.0,), (4.0,))
    assert not list(interceptors(policy))


def test_the_limit_is_a_quantile_of_the_runs():
    errors = {("ramp", step): np.arange(1.0, 11.0) for step in (1, 2, 3)}
    guard = Guard.of_errors(HELD, errors, quantile=0.8)
    assert guard.limits["ramp"][1] == pytest.approx(8, rel=1e-3)
    assert guard.allowed == allowed_share(10, 8)


def test_a_few_cells_can_be_watched_instead_of_all():
    guard = calibrated(RampPolicy(), num_watched=2)
    assert len(guard.cells) == 2
    assert set(guard.cells) < {("ramp", 1), ("ramp", 2), ("ramp", 3)}


def test_calibration_leaves_the_random_state_alone():
    policy, batch = RampPolicy(), drift(1.0, 1.0)
    torch.manual_seed(3)
    calibrate(policy, HELD, [batch], blocks=policy.blocks(), progress=False)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_what_cannot_be_calibrated_on_is_refused():
    policy = RampPolicy()
    options = {"blocks": policy.blocks(), "progress": False}
    with pytest.raises(CalibrationError, match="at least two runs, 100 or more to be sharp, got 1"):
        calibrate(policy, HELD, [drift(1.0)], **options)
    with pytest.raises(CalibrationError, match=r"got one batch; pass \[batch\]"):
        calibrate(policy, HELD, drift(1.0), **options)
    with pytest.raises(CalibrationError, match="ramp: its output is not finite at denoising step 1"):
        calibrate(policy, HELD, [drift(float("nan"), 1.0)], **options)
    with pytest.raises(ScheduleError, match="that keeps nothing from chunk to chunk, but previous_chunk is not one"):
        across = bac.Denoising(schedule=HELD, estimator=PreviousChunk())
        calibrate(policy, across, [drift(1.0, 1.0)], **options)
    bac.wrap(policy, HELD, blocks=policy.blocks())
    with pytest.raises(CalibrationError, match=r"call bac\.unwrap\(policy\) first"):
        calibrate(policy, HELD, [drift(1.0, 1.0)], **options)


def test_a_guard_survives_the_disk(tmp_path):
    guard = calibrated(RampPolicy(), response=TWICE, cooldown=7)
    guard.save(tmp_path / "guard.json")
    loaded = Guard.load(tmp_path / "guard.json")
    assert {name: getattr(loaded, name) for name in vars(guard)} == vars(guard)
    (tmp_path / "guard.json").write_text("{}")
    with pytest.raises(ScheduleError, match="is no guard of version 1"):
        Guard.load(tmp_path / "guard.json")


def test_a_guard_draws_itself():
    errors = {("ramp", step): np.full(64, error) for step, error in ((1, 0.01), (2, 0.35), (3, 2.0))}
    assert str(Guard.of_errors(HELD, errors)) == (
        "Guard: 3 watched cells of 1 blocks x 4 steps, limits from 64 runs; 6.9 % of looks may exceed them\n"
        "  one chunk in 150 is probed at 16 cells; 1000 probed chunks or more to a false alarm; then: log\n"
        "  ramp  #03+        # computed or not watched  0-9 limit of the relative error in tenths  + 1 or more"
    )


@pytest.mark.parametrize("wrong", [{"probe_every": 0}, {"response": "panic"}, {"cooldown": 0}, {"allowed": 1.0}])
def test_a_value_out_of_range_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ScheduleError, match=f"guard: {name} must be"):
        replace(calibrated(RampPolicy()), **wrong)
