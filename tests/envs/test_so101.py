"""SO-101 pick and place: the contract, its controller, and the package's own observations."""

import numpy as np
import pytest

import envs
from envs.expert import play_expert
from envs.so101 import Simulator, SO101Env
from tests.contracts_env import EnvContract, assert_equal, play

pytestmark = pytest.mark.sim


class TestSO101(EnvContract):
    name = "so101"
    kwargs = {"task": "so101-pick-place"}


def test_an_episode_is_the_packages_own():
    env, theirs = SO101Env(), Simulator(action_scale=0.025, random_block_position=True)
    mine, _ = env.reset(seed=3)
    other, _ = theirs.reset(seed=3)
    for action in np.float32([[0, 0, 0, 1], [1, -0.5, 0.25, 0.5], [0, 0, 0, 0]]):
        np.testing.assert_array_equal(mine["agent_pos"], other["agent_pos"])
        np.testing.assert_array_equal(mine["environment_state"], other["environment_state"])
        mine, other = env.step(action)[0], theirs.step(action)[0]


def test_the_world_is_the_block_and_the_goal():
    env = SO101Env()
    observation, _ = env.reset(seed=0)
    block, goal = np.split(observation["environment_state"], 2)
    np.testing.assert_allclose(block, env._simulator.data.body("block").xpos, atol=1e-6)
    np.testing.assert_allclose(goal, env._simulator.goal_pos, atol=1e-6)


def test_the_controller_succeeds_ends_the_episode_and_scores():
    env = SO101Env()
    successes = [play_expert(env, seed)[1] for seed in range(5)]
    assert successes == [True] * 5
    assert env.score() == 1.0


def test_the_controller_starts_anew_with_every_episode():
    env = SO101Env()
    whole, _ = play_expert(env, 3)
    env.reset(seed=3)
    for _ in range(20):  # the controller is closing the gripper, or has
        env.step(env.expert_action())
    np.testing.assert_array_equal(play_expert(env, 3)[0]["action"], whole["action"])


def test_losing_the_block_ends_the_episode_without_success():
    env = envs.make("so101")
    env.reset(seed=0)
    env.unwrapped._simulator.data.joint("block").qpos[:2] = (0.3, 0.25)  # the workspace ends at y = 0.2 m
    _, _, terminated, truncated, info = env.step(np.array([0, 0, 0, 1]))
    assert (terminated, truncated, info["is_success"], env.unwrapped.score()) == (True, False, False, 0.0)


def test_actions_beyond_the_range_are_clipped():
    env = envs.make("so101")
    assert_equal(play(env, 0, [np.array([7, -7, 2, -2])] * 3), play(env, 0, [np.array([1, -1, 1, 0])] * 3))


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"max_episode_steps": 0}, "must be at least 1, got 0"),
        ({"action_scale": 0.0}, "action_scale must be positive, got 0.0"),
        ({"camera": "wrist"}, "so101 camera 'wrist': no such camera. Known: front"),
    ],
)
def test_a_world_that_cannot_be_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        SO101Env(**bad)
