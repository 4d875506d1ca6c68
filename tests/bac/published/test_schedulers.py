"""Published schedulers on signals whose answer is mental arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bac.caching.block import BlockKind
from bac.caching.schedulers.mask import mask_schedule
from bac.caching.similarity import batched_cosine_similarity, batched_gram, batched_relative_change
from bac.errors import ScheduleError
from bac.published import change_threshold, smooth
from bac.published.block_ranges import Phase, block_ranges_schedule
from bac.published.by_kind import by_kind_schedule
from bac.published.change_threshold import change_threshold_schedule
from bac.published.smooth import smooth_schedule
from tests.bac.statistics import calibration

NAMES = ["l0.self_attn", "l0.ffn", "l1.self_attn", "l1.ffn"]


def statistics(num_steps=8, change=None):
    return replace(calibration({name: np.eye(num_steps) for name in NAMES}, [0.0] * 4), change=change)


def test_relative_change_is_the_l1_change_over_the_l1_size():
    # |1 - 3| / |1|, |6 - 1| / |6|; two steps apart |6 - 3| / |6|.
    change = batched_relative_change(torch.tensor([[[3.0]], [[1.0]], [[6.0]]]), 2)[0]
    assert change[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert change[1:, 1].tolist() == pytest.approx([2.0, 5 / 6])
    assert change[2, 2].item() == pytest.approx(0.5)
    assert change[0, 1] == change[1, 2] == torch.inf


def test_an_output_that_stays_zero_has_not_changed():
    change = batched_relative_change(torch.tensor([[[0.0]], [[0.0]], [[2.0]], [[0.0]]]), 1)[0, 1:, 1]
    assert change.tolist() == [0.0, 1.0, torch.inf]


def test_the_gram_matrix_holds_mean_products():
    features = torch.tensor([[[3.0, 1.0]], [[1.0, -1.0]], [[0.0, 0.0]]])
    gram = batched_gram(features, batched_cosine_similarity(features))[0]
    assert gram.flatten().tolist() == pytest.approx([5, 1, 0, 1, 1, 0, 0, 0, 0])


def test_change_threshold_updates_when_what_was_missed_exceeds_it():
    # 3 + 3 stays within 6, the next 3 does not; then 5, and 5 more is too much.
    assert change_threshold.update_steps([9, 3, 3, 3, 5, 5, 1], 6) == (0, 3, 5)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=12), st.floats(0, 5))
def test_between_updates_no_more_than_the_threshold_is_missed(change, threshold):
    steps = change_threshold.update_steps(change, threshold)
    for start, end in zip(steps, (*steps[1:], len(change)), strict=True):
        missed = [sum(change[start + 1 : stop]) for stop in range(start + 2, end + 2) if stop <= len(change)]
        assert all(total <= threshold * (1 + 1e-9) + 1e-12 for total in missed[: end - start - 1])


def test_change_threshold_treats_every_block_on_its_own():
    change = np.zeros((4, 8, 4))
    change[1, :, 1] = 1.0
    schedule = change_threshold_schedule(statistics(change=change), 1.5)
    assert list(schedule.update_steps.values()) == [(0,), (0, 2, 4, 6), (0,), (0,)]


def test_smooth_reuses_as_long_as_the_error_stays_within_the_tolerance():
    # The error grows by 0.1 a step: two reuses within 0.2, then an update; the last step always updates.
    change = np.tile(0.1 * np.arange(4), (9, 1))
    assert smooth.update_steps(change, 0.25) == (0, 3, 6, 8)
    assert smooth.update_steps(change, 9.0) == (0, 4, 8)  # three reuses at most
    assert smooth.update_steps(change, 0.0) == tuple(range(9))


def test_smooth_shares_steps_among_blocks_of_a_kind():
    change = np.zeros((4, 8, 4))
    change[[1, 3], :, 1:] = [[[0.1]], [[0.5]]]  # feed-forward: 0.3 on average
    schedule = smooth_schedule(statistics(change=change), 0.2)
    assert schedule.update_steps["l0.ffn"] == schedule.update_steps["l1.ffn"] == tuple(range(8))
    assert schedule.update_steps["l0.self_attn"] == schedule.update_steps["l1.self_attn"] == (0, 4, 7)


def test_block_ranges_reuse_rear_layers_first_and_front_layers_later():
    schedule = block_ranges_schedule(statistics(), [Phase(0, [1], 2), Phase(5, [0], 3)])
    assert schedule.update_steps["l0.ffn"] == (0, 1, 2, 3, 4, 5)
    assert schedule.update_steps["l1.ffn"] == (0, 2, 4, 5, 6, 7)


def test_by_kind_updates_each_kind_at_its_interval_within_the_window():
    schedule = by_kind_schedule(statistics(), {BlockKind.SELF_ATTENTION: 3}, window=(2, 7))
    assert schedule.update_steps["l0.self_attn"] == (0, 1, 3, 6, 7)
    assert schedule.update_steps["l1.ffn"] == tuple(range(8))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=7, max_size=7))
def test_a_mask_comes_back_as_it_went_in(rows):
    mask = np.array([[True] * 4, *rows])
    assert (mask_schedule(statistics(), mask).mask == mask).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ScheduleError, match="has no change; calibrate again"):
        smooth_schedule(statistics(), 0.1)
    with pytest.raises(ScheduleError, match="threshold: must be at least 0, got -1"):
        change_threshold.update_steps([0, 1], -1)
    with pytest.raises(
        ScheduleError, match=r"phases: must begin at increasing steps below 8, the first at 0, got \[3\]"
    ):
        block_ranges_schedule(statistics(), [Phase(3, [0], 2)])
    with pytest.raises(ScheduleError, match="interval: must be at least 1 step, got 0"):
        Phase(0, [0], 0)
    with pytest.raises(ScheduleError, match=r"intervals: .*self_attention.*0"):
        by_kind_schedule(statistics(), {BlockKind.SELF_ATTENTION: 0})
    with pytest.raises(ScheduleError, match=r"window: .*\(5, 9\)"):
        by_kind_schedule(statistics(), {}, window=(5, 9))
    with pytest.raises(ScheduleError, match="compare probabilities with a threshold first"):
        mask_schedule(statistics(), np.ones((8, 4)))
    with pytest.raises(ScheduleError, match="the first update must be step 0"):
        mask_schedule(statistics(), np.zeros((8, 4), dtype=bool))
