from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bac
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError
from bac.fingerprint import Fingerprint

FINGERPRINT = Fingerprint(
    "a.Policy", "a.Denoiser", ("a", "b"), 5, "DDPMScheduler", (99.0, 50.0, 3.0), "float32", "16 runs"
)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    num_steps = draw(st.integers(1, 13))
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
    later = st.lists(st.integers(1, num_steps - 1), unique=True) if num_steps > 1 else st.just([])
    steps = {name: (0, *sorted(draw(later))) for name in names}
    return Schedule(num_steps, steps, draw(st.sampled_from([None, FINGERPRINT])))


@given(schedules())
def test_json_round_trip_is_the_identity(tmp_path_factory, schedule):
    path = tmp_path_factory.mktemp("schedule") / "bac.json"
    bac.Denoising(schedule=schedule).save(path)
    loaded = bac.load(path).schedule
    assert loaded == schedule
    assert (loaded.fingerprint, loaded.block_names) == (schedule.fingerprint, schedule.block_names)


@given(schedules())
def test_the_mask_counts_the_updates(schedule):
    assert schedule.mask.shape == (schedule.num_steps, len(schedule.block_names))
    assert schedule.mask.sum() == schedule.num_updates_total
    assert schedule.mask[0].all()


@given(schedules())
def test_pickle_and_deepcopy_keep_a_schedule(schedule):
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert copy.deepcopy(schedule) == schedule
    assert hash(copy.deepcopy(schedule)) == hash(schedule)


def test_it_draws_itself():
    schedule = Schedule(8, {"layers.0.self_attn": (0, 3), "layers.0.ffn": (0, 2, 3, 5, 6)})
    assert str(schedule).splitlines() == [
        "Schedule: 2 blocks, 8 denoising steps, 7 of 16 updates        # update  . reuse",
        "  layers.0.self_attn  #..#....",
        "  layers.0.ffn        #.##.##.",
    ]


def test_sweeps_are_updates_per_block():
    assert Schedule(8, {"a": (0, 3), "b": (0, 2, 3, 5)}).num_sweeps == 3.0


def test_with_last_updates_every_block_at_the_final_steps():
    schedule = Schedule(5, {"a": (0,), "b": (0, 3)}).with_last(2)
    assert dict(schedule.update_steps) == {"a": (0, 3, 4), "b": (0, 3, 4)}


def test_num_changed_counts_updates_the_other_lacks():
    assert Schedule(5, {"a": (0, 1, 2)}).num_changed(Schedule(5, {"a": (0, 2, 4)})) == 1


def test_steps_may_come_as_numpy_integers():
    assert Schedule(5, {"a": tuple(np.array([0, 2]))}).update_steps["a"] == (0, 2)


@pytest.mark.parametrize(
    ("num_steps", "steps", "message"),
    [
        (0, {"a": (0,)}, "num_steps: must be a whole number of at least 1, got 0"),
        (2.0, {"a": (0,)}, "num_steps: must be a whole number of at least 1, got 2.0"),
        (5, {}, "needs at least one block"),
        (5, {"a": ()}, "a: the first update must be step 0, got ()"),
        (5, {"a": (1, 2)}, "a: the first update must be step 0, got (1, 2)"),
        (5, {"a": (0, 3, 3)}, "a: update steps must increase"),
        (5, {"a": (0, 5)}, "a: update steps must be below num_steps = 5, got 5"),
        (5, {"a": (0, 1.5)}, "a: update steps must be whole numbers"),
    ],
)
def test_a_broken_rule_is_named(num_steps, steps, message):
    with pytest.raises(ScheduleError) as caught:
        Schedule(num_steps, steps)
    assert message in str(caught.value)


@pytest.mark.parametrize("num_last", [-1, 6])
def test_with_last_out_of_range_is_refused(num_last):
    with pytest.raises(ScheduleError, match=r"force_last: must be in \[0, 5\]"):
        Schedule(5, {"a": (0,)}).with_last(num_last)


def test_comparing_other_blocks_is_refused():
    with pytest.raises(ScheduleError, match="num_changed"):
        Schedule(5, {"a": (0,)}).num_changed(Schedule(5, {"b": (0,)}))


def test_a_fingerprint_names_each_difference():
    other = Fingerprint(
        "a.Policy", "a.Denoiser", ("a", "b"), 5, "DDIMScheduler", (98.0, 50.0, 3.0), "float32", "2 runs"
    )
    assert FINGERPRINT.differences(other) == (
        "solver: the schedule has DDPMScheduler, the policy has DDIMScheduler",
        "timesteps: the schedule has (99.0, 50.0, 3.0), the policy has (98.0, 50.0, 3.0)",
    )


def test_unknown_parts_of_a_fingerprint_match_anything():
    assert FINGERPRINT.differences(Fingerprint(policy="a.Policy")) == ()
