from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bac.caching.schedule import Schedule
from bac.caching.schedulers.bubbling import bubble
from bac.errors import ScheduleError
from tests.bac.statistics import block

NAMES = [f"l{layer}.{kind}" for layer in range(3) for kind in ("self_attn", "cross_attn", "ffn")]
BLOCKS = [block(name) for name in NAMES]


def test_a_fragile_block_takes_the_steps_of_its_own_and_later_ffns():
    schedule = Schedule(9, {name: (0, index) if index else (0,) for index, name in enumerate(NAMES)})
    errors = dict.fromkeys(NAMES, 1.0) | {"l1.self_attn": 2.0}
    bubbled = bubble(schedule, errors, 1, BLOCKS)
    # l1.self_attn itself updates at 3; the FFNs of layers 1 and 2 at 5 and 8; layer 0's at 2 lies upstream.
    assert bubbled.update_steps["l1.self_attn"] == (0, 3, 5, 8)
    assert {n: s for n, s in bubbled.update_steps.items() if n != "l1.self_attn"} == {
        n: s for n, s in schedule.update_steps.items() if n != "l1.self_attn"
    }


def test_unions_are_taken_with_the_steps_before_bubbling():
    # l0.ffn bubbles to 4 through l1.ffn, but l0.self_attn must not see that: it takes l0.ffn's own (0, 2).
    schedule = Schedule(5, {"l0.self_attn": (0,), "l0.ffn": (0, 2), "l1.ffn": (0, 4)})
    blocks = [block(name) for name in schedule.block_names]
    errors = {"l0.self_attn": 3.0, "l0.ffn": 2.0, "l1.ffn": 1.0}
    assert dict(bubble(schedule, errors, 2, blocks).update_steps) == {
        "l0.self_attn": (0, 2, 4),
        "l0.ffn": (0, 2, 4),
        "l1.ffn": (0, 4),
    }


def test_of_equally_fragile_blocks_the_upstream_one_bubbles():
    schedule = Schedule(3, {"l0.self_attn": (0,), "l0.cross_attn": (0,), "l0.ffn": (0, 1)})
    blocks = [block(name) for name in schedule.block_names]
    bubbled = bubble(schedule, {"l0.self_attn": 1.0, "l0.cross_attn": 1.0, "l0.ffn": 0.0}, 1, blocks)
    assert bubbled.update_steps["l0.self_attn"] == (0, 1)
    assert bubbled.update_steps["l0.cross_attn"] == (0,)


def test_bubbling_nothing_returns_the_schedule_itself():
    schedule = Schedule(3, dict.fromkeys(NAMES, (0,)))
    assert bubble(schedule, {}, 0, []) is schedule


@given(
    st.lists(st.sets(st.integers(1, 10)), min_size=9, max_size=9),
    st.lists(st.floats(0, 1), min_size=9, max_size=9),
    st.integers(0, 9),
)
def test_bubbling_never_removes_an_update_and_touches_only_the_most_fragile(later, errors, num_bubbled):
    schedule = Schedule(11, {name: (0, *sorted(steps)) for name, steps in zip(NAMES, later, strict=True)})
    caching_error = dict(zip(NAMES, errors, strict=True))
    bubbled = bubble(schedule, caching_error, num_bubbled, BLOCKS)
    assert schedule.num_changed(bubbled) == 0
    changed = [name for name in NAMES if bubbled.update_steps[name] != schedule.update_steps[name]]
    threshold = sorted(errors, reverse=True)[num_bubbled - 1] if num_bubbled else float("inf")
    assert len(changed) <= num_bubbled
    assert all(caching_error[name] >= threshold for name in changed)


@pytest.mark.parametrize("num_bubbled", [-1, 10])
def test_a_number_out_of_range_is_refused(num_bubbled):
    with pytest.raises(ScheduleError, match=rf"num_bubbled: must be in \[0, 9\].*got {num_bubbled}"):
        bubble(Schedule(3, dict.fromkeys(NAMES, (0,))), {}, num_bubbled, BLOCKS)


def test_a_missing_error_or_block_is_named():
    schedule = Schedule(3, {"l0.self_attn": (0,), "l0.ffn": (0,)})
    with pytest.raises(ScheduleError, match=r"caching_error: lacks 1 of the schedule's blocks, first l0\.ffn"):
        bubble(schedule, {"l0.self_attn": 1.0}, 1, BLOCKS)
    with pytest.raises(ScheduleError, match=r"blocks: lacks 2 of the schedule's blocks, first l0\.self_attn"):
        bubble(schedule, {"l0.self_attn": 1.0, "l0.ffn": 1.0}, 1, [])
