"""A guard beside its schedule, its responses by name, and surveys of a policy that something else runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bac
from bac.caching.interceptors.patch import interceptors
from bac.errors import CalibrationError, ScheduleError
from bac.guarding import Guard, report
from bac.guarding.calibration import surveying
from bac.guarding.files import beside, denser
from tests.bac.guarding.models import CALM, HELD, TWICE, WILD, RampPolicy, calibrated, predict


def test_denser_updates_in_the_middle_of_every_stretch_of_reuse():
    schedule = bac.Schedule(8, {"a": (0,), "b": (0, 1, 5), "c": tuple(range(8))}, estimator="taylor-1")
    expected = {"a": (0, 4), "b": (0, 1, 3, 5, 6), "c": tuple(range(8))}
    assert denser(schedule) == replace(schedule, update_steps=expected)


@given(data=st.data(), num_steps=st.integers(1, 30))
def test_denser_keeps_every_update_and_halves_every_stretch(data, num_steps):
    steps = tuple(sorted({0, *data.draw(st.sets(st.integers(0, num_steps - 1)))}))
    more = denser(bac.Schedule(num_steps, {"a": steps})).update_steps["a"]
    assert set(steps) <= set(more)
    assert longest(more, num_steps) <= longest(steps, num_steps) / 2


def longest(steps, num_steps):
    """Reused steps in a row, at most."""
    return max(after - before - 1 for before, after in zip(steps, (*steps[1:], num_steps), strict=True))


@pytest.fixture
def path(tmp_path):
    """A schedule with a guard beside it that only logs."""
    calibrated(RampPolicy(), patience=10).save(tmp_path / "guard.json")
    bac.Denoising(schedule=HELD).save(tmp_path / "bac.json")
    return tmp_path / "bac.json"


def test_a_guard_is_found_beside_its_schedule_with_the_response_one_asks_for(path):
    assert beside(path, HELD).response == "log"
    assert beside(path, HELD, "dense").response == "dense"
    assert beside(path, HELD, "denser").response == TWICE
    assert beside(path, HELD, "dense").limits == Guard.load(path.with_name("guard.json")).limits


def test_a_schedule_that_a_guard_was_saved_with_is_what_denser_means(path):
    other = bac.Schedule(4, {"ramp": (0, 1, 3)})
    replace(beside(path, HELD), response=other).save(path.with_name("guard.json"))
    assert beside(path, HELD, "denser").response == beside(path, HELD).response == other


def test_what_is_not_there_or_unknown_is_refused(path):
    with pytest.raises(ScheduleError, match="response: must be log, denser or dense, got 'panic'"):
        beside(path, HELD, "panic")
    path.with_name("guard.json").unlink()
    with pytest.raises(
        ScheduleError, match=f"there is no .*guard.json; make one: bac guard --policy-path {path.parent}"
    ):
        beside(path, HELD)


@pytest.mark.parametrize(("response", "then"), [("log", 4), ("denser", 1 + 1 + 3 + 3), ("dense", 1 + 2 + 3 + 4)])
def test_after_an_alarm_a_guard_from_disk_does_what_was_asked(path, response, then):
    policy = RampPolicy()
    bac.wrap(policy, HELD, blocks=policy.blocks(), guard=replace(beside(path, HELD, response), action_range=None))
    with pytest.warns(RuntimeWarning, match="the schedule no longer fits what is seen"):
        while not report(policy).num_alarms:
            assert predict(policy, WILD) == 4
    assert predict(policy, WILD) == then
    policy.reset()
    assert predict(policy, WILD) == 4


def test_a_survey_measures_one_run_of_so_many_of_a_policy_that_something_else_runs():
    policy = RampPolicy()
    with surveying(policy, HELD, blocks=policy.blocks(), every=3) as survey:
        made = [predict(policy, CALM) for _ in range(7)]
    assert made == [4.0] * 7  # the actions are those of the cached policy
    assert (survey.num_chunks, survey.num_runs) == (7, 3)
    errors = survey.measured().errors
    assert {cell: rows.tolist() for cell, rows in errors.items()} == {
        ("ramp", step): pytest.approx([step * CALM / (1 + step * CALM)] * 3) for step in (1, 2, 3)
    }
    assert not list(interceptors(policy))


def test_a_survey_of_a_wrapped_policy_is_refused():
    policy = RampPolicy()
    bac.wrap(policy, HELD, blocks=policy.blocks())
    with (
        pytest.raises(CalibrationError, match=r"call bac\.unwrap\(policy\) first"),
        surveying(policy, HELD, blocks=policy.blocks()),
    ):
        pass
