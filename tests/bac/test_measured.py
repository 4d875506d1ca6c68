"""What was measured of a way to denoise: when it warns, and how it travels."""

from dataclasses import replace

import pytest

import bac
from bac.errors import ScheduleError
from bac.measured import Measured

NEAR = Measured("energy distance", 0.003, -0.001, 0.007, 0.004, 0.01, 0.98, 24, 8, "DDPMScheduler, 100 steps")
FAR = replace(NEAR, value=0.14, low=0.11, high=0.17, spread=1.6)


def test_a_choice_as_near_as_the_policy_to_itself_warns_of_nothing():
    assert NEAR.warning is None


def test_a_choice_that_leads_to_other_actions_says_so_with_its_numbers():
    assert "energy distance 0.1400 [0.1100, 0.1700], the policy to itself below 0.0040, spread 1.60" in FAR.warning
    assert "DDPMScheduler, 100 steps" in FAR.warning and "Play episodes" in FAR.warning


def test_an_action_error_is_reported_without_a_warning():
    measured = replace(FAR, quantity="action error", floor=0.0, shift=None, spread=None, num_draws=1)
    assert measured.warning is None
    assert str(measured).startswith("action error 0.1400 [0.1100, 0.1700] to DDPMScheduler")


def test_it_travels_in_the_file(tmp_path):
    bac.Denoising(num_steps=3, measured=FAR).save(tmp_path / "bac.json")
    assert bac.load(tmp_path / "bac.json").measured == FAR


def test_two_ways_are_equal_whatever_was_measured():
    assert bac.Denoising(num_steps=3, measured=FAR) == bac.Denoising(num_steps=3)


@pytest.mark.parametrize(
    "change",
    [{"value": "far"}, {"value": float("nan")}, {"quantity": 3}, {"colour": "blue"}, {"num_draws": True}]
    + [{"value": 10**400}, {"quantity": "joy"}, {"low": 0.2}, {"num_observations": -3}],
)
def test_a_damaged_record_is_refused(change):
    with pytest.raises(ScheduleError, match="measured: .*tune again"):
        Measured.from_dict({**FAR.to_dict(), **change})


def test_a_missing_field_is_named():
    document = FAR.to_dict()
    del document["floor"]
    with pytest.raises(ScheduleError, match=r"missing or unknown \(floor\)"):
        Measured.from_dict(document)
