"""The jerk of executed actions, in a world whose answer is mental arithmetic."""

import numpy as np
import pytest

from eval.play.metered import MeteredSeat


def played(make_world, *chunks):
    seat = MeteredSeat(make_world(), 1)
    seat.start(0)
    for chunk in chunks:
        seat.execute(np.array(chunk, np.float32)[:, None].repeat(2, 1) * 1e-3)
    return seat


def test_actions_on_a_parabola_have_no_jerk_and_a_jump_at_the_seam_has(make_world):
    result = played(make_world, [0, 1, 4, 9, 16], [25, 36, 49, 64]).result()
    assert result.squares == pytest.approx([0, 0], abs=1e-12) and result.counts == [3, 3]
    jumped = played(make_world, [0, 1, 4, 9, 16], [35, 46, 59, 74]).result()
    assert jumped.squares[0] == pytest.approx(0, abs=1e-12)
    # the jump of 10 is differenced to 10, -20, 10 as it passes through the window
    assert jumped.squares[1] == pytest.approx((100 + 400 + 100) * 1e-6, rel=1e-3)


def test_actions_that_are_not_executed_do_not_count(make_world):
    seat = played(make_world, [0] * 4, [1000, 0, 0, 0])  # success ends the episode after one more action
    assert seat.done
    assert seat.result().counts == [1, 1]
