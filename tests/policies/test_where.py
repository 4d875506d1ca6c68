import numpy as np
import pytest
import torch
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

from policies.demonstrations import Demonstrations
from policies.recipes.where import Where, last_present


def told(states: np.ndarray, sentences: tuple[str, ...], part_ends: tuple[int, ...]) -> Demonstrations:
    """Demonstrations of one control step an episode."""
    n = len(states)
    arrays = {OBS_STATE: np.zeros((n, 1), np.float32), ACTION: np.zeros((n, 1), np.float32), OBS_ENV_STATE: states}
    return Demonstrations(arrays, np.arange(1, n + 1), {}, part_ends=part_ends, instructions=sentences)


def test_an_answer_is_a_place_among_the_places_of_the_same_instruction():
    states = np.array([[0, 7], [2, 7], [100, 7], [140, 7]], np.float32)
    where = Where(told(states, ("open", "close"), (2, 4)), width=3)
    assert where.answers.tolist() == [[-1], [1], [-1], [1]]  # the second number never varies, so nobody asks for it


def test_two_recordings_of_one_instruction_are_one_task():
    states = np.array([[0], [2], [4], [6]], np.float32)
    where = Where(told(states, ("open", "open"), (2, 4)), width=3)
    np.testing.assert_allclose(where.answers[:, 0], (states[:, 0] - 3) / 5**0.5, rtol=1e-6)


def test_a_number_that_is_still_in_one_task_is_zero_there():
    states = np.array([[0, 1], [2, 1], [5, 1], [5, 3]], np.float32)
    assert Where(told(states, ("open", "close"), (2, 4)), width=3).answers.tolist() == [
        [-1, 0],
        [1, 0],
        [0, -1],
        [0, 1],
    ]


def test_the_loss_of_the_right_answer_is_zero_and_a_gradient_leads_there():
    where = Where(told(np.array([[0.0], [2.0]], np.float32), ("open",), (2,)), width=4)
    summary = torch.zeros(2, 4, requires_grad=True)
    assert where.loss(summary, where.answers).item() == 1.0  # nothing is said: the mean square of -1 and 1
    for _ in range(200):
        (gradient,) = torch.autograd.grad(where.loss(summary, where.answers), summary)
        summary = (summary - 0.5 * gradient).detach().requires_grad_()
    assert where.loss(summary, where.answers).item() < 1e-4


def test_what_cannot_be_asked_is_refused():
    still = told(np.ones((2, 1), np.float32), ("open",), (2,))
    with pytest.raises(ValueError, match="nothing in environment_state moves .*where=0"):
        Where(still, width=3)
    del still.arrays[OBS_ENV_STATE]
    with pytest.raises(ValueError, match="no environment_state .*where=0"):
        Where(still, width=3)


def test_the_last_token_that_is_there_speaks_for_all():
    outputs = torch.arange(6.0).reshape(2, 3, 1)
    present = torch.tensor([[True, True, False], [True, False, True]])
    assert last_present(outputs, present).flatten().tolist() == [1, 5]
