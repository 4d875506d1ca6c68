import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_STATE

from policies.windows import Windows, window_rows

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=4)
OFFSETS = st.lists(st.integers(-5, 11), min_size=1, max_size=5)


def test_a_window_stays_in_its_episode():
    rows, padded = window_rows(np.array([3, 5]), [-1, 0, 1])
    assert rows.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 4], [3, 4, 4]]
    assert padded.tolist() == [
        [True, False, False],
        [False] * 3,
        [False, False, True],
        [True, False, False],
        [False, False, True],
    ]


def test_last_steps_can_go_without_a_window():
    rows, _ = window_rows(np.array([3, 5]), [0], drop_n_last=2)
    assert rows.tolist() == [[0]]


@given(lengths=LENGTHS, offsets=OFFSETS)
def test_every_step_has_a_window_whose_rows_are_the_wanted_steps_or_the_nearest(lengths, offsets):
    ends = np.cumsum(lengths)
    rows, padded = window_rows(ends, offsets)
    assert len(rows) == ends[-1]
    for current, (window, stands_in) in enumerate(zip(rows, padded, strict=True)):
        episode = int(np.searchsorted(ends, current, side="right"))
        start, end = ends[episode] - lengths[episode], ends[episode]
        wanted = [current + offset for offset in offsets]
        assert window.tolist() == [min(max(step, start), end - 1) for step in wanted]
        assert stands_in.tolist() == [not start <= step < end for step in wanted]


def test_a_batch_holds_past_observations_and_future_actions():
    steps = torch.arange(5.0)[:, None]
    windows = Windows.cut({OBS_STATE: steps, ACTION: steps * 10}, np.array([5]), [-1, 0], [-1, 0, 1, 2], 0)
    batch = windows.batch(torch.tensor([0, 3]))
    assert batch[OBS_STATE][..., 0].tolist() == [[0, 0], [2, 3]]
    assert batch[ACTION][..., 0].tolist() == [[0, 0, 10, 20], [20, 30, 40, 40]]
    assert batch["action_is_pad"].tolist() == [[True, False, False, False], [False, False, False, True]]


def test_a_window_whose_picture_is_missing_is_left_out():
    steps = torch.arange(5.0)[:, None]
    drawn = np.array([False, True, False, True, True])
    seen = {OBS_IMAGE: torch.tensor([[10], [30], [40]])}  # the pictures of steps 1, 3 and 4
    values = {OBS_STATE: steps, ACTION: steps}
    one = Windows.cut(values, np.array([5]), [0], [0], 0, pictures=seen, drawn=drawn).batch(torch.arange(3))
    assert (one[OBS_STATE].flatten().tolist(), one[OBS_IMAGE].flatten().tolist()) == ([1, 3, 4], [10, 30, 40])
    two = Windows.cut(values, np.array([5]), [-1, 0], [0], 0, pictures=seen, drawn=drawn)
    assert two.batch(torch.arange(len(two)))[OBS_IMAGE].flatten().tolist() == [30, 40]
    assert len(Windows.cut(values, np.array([5]), [0], [0], 0, drawn=drawn)) == 5  # a policy that does not see
    with pytest.raises(ValueError, match="no window of 3 observations .* draw_every=1"):
        Windows.cut(values, np.array([5]), [-2, -1, 0], [0], 0, pictures=seen, drawn=drawn)


def test_a_window_of_the_first_steps_repeats_the_first_picture():
    seen = {OBS_IMAGE: torch.tensor([[10], [20]])}
    windows = Windows.cut({ACTION: torch.zeros(2, 1)}, np.array([2]), [-1, 0], [0], 0, pictures=seen)
    assert windows.batch(torch.arange(2))[OBS_IMAGE][..., 0].tolist() == [[10, 10], [10, 20]]
