"""The published experts of AdroitHand, on tiny arrays made here."""

import os

import numpy as np
import pytest

from envs.adroit import TASKS, AdroitEnv
from envs.dapg_expert import ARRAYS, DapgExpert
from envs.expert import play_expert

PUBLISHED = os.environ.get("ADROIT_EXPERTS", "")  # path of the npz, which is not part of this repository


def tiny_expert(observation_size: int, action_size: int, hidden: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "w0": (hidden, observation_size),
        "b0": (hidden,),
        "w1": (hidden, hidden),
        "b1": (hidden,),
        "w2": (action_size, hidden),
        "b2": (action_size,),
        "in_shift": (observation_size,),
        "in_scale": (observation_size,),
        "out_shift": (action_size,),
        "out_scale": (action_size,),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_an_action_goes_through_both_hidden_layers():
    arrays = {
        "in_shift": [1.0],
        "in_scale": [2.0],
        "w0": [[1.0]],
        "b0": [0.5],
        "w1": [[2.0]],
        "b1": [0.25],
        "w2": [[3.0]],
        "b2": [0.125],
        "out_shift": [-1.0],
        "out_scale": [5.0],
    }
    expert = DapgExpert({name: np.array(value) for name, value in arrays.items()})
    expected = 5 * (3 * np.tanh(2 * np.tanh(1 * 1.0 + 0.5) + 0.25) + 0.125) - 1
    np.testing.assert_allclose(expert.act(np.array([3.0])), [expected], rtol=1e-7)


def test_the_expert_of_a_task_is_read_from_the_archive(tmp_path):
    door, pen = tiny_expert(5, 2), tiny_expert(7, 3)
    named = {f"door/{name}": array for name, array in door.items()} | {f"pen/{n}": array for n, array in pen.items()}
    np.savez(tmp_path / "experts.npz", **named)
    read = DapgExpert.load(tmp_path / "experts.npz", "pen")
    assert set(read.arrays) == set(ARRAYS)
    for name in ARRAYS:
        np.testing.assert_array_equal(read.arrays[name], pen[name])


def test_an_archive_without_the_task_is_refused_with_what_it_lacks(tmp_path):
    np.savez(tmp_path / "experts.npz", **{f"door/{name}": array for name, array in tiny_expert(5, 2).items()})
    with pytest.raises(ValueError, match=r"the expert of pen has pen/in_shift, .*; this lacks \['pen/in_shift'"):
        DapgExpert.load(tmp_path / "experts.npz", "pen")


@pytest.mark.sim
def test_the_expert_sees_the_whole_observation_and_its_action_is_clipped():
    expert = DapgExpert(tiny_expert(45, 24))
    env = AdroitEnv("adroit-pen", expert=expert)
    env.reset(seed=0)
    action = env.expert_action()
    expected = expert.act(env._simulator._get_obs())
    assert action.dtype == np.float32
    np.testing.assert_array_equal(action, np.clip(expected, -1, 1).astype(np.float32))


@pytest.mark.sim
@pytest.mark.skipif(not PUBLISHED, reason="ADROIT_EXPERTS does not say where the published experts are")
@pytest.mark.parametrize("task", TASKS)
def test_the_published_experts_succeed(task):
    env = AdroitEnv(task, expert=DapgExpert.load(PUBLISHED, task.removeprefix("adroit-")))
    successes = [play_expert(env, seed)[1] for seed in range(10)]
    assert sum(successes) >= 8
