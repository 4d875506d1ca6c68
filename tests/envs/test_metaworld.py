"""MetaWorld: the contract, all fifty tasks, and LeRobot's seeds."""

import subprocess
import sys

import numpy as np
import pytest

import envs
from envs.expert import play_expert
from envs.metaworld import EXPERTS, MetaWorldEnv, lerobot_instructions
from tests.contracts_env import EnvContract, assert_equal, play

pytestmark = pytest.mark.sim

FRESH_EPISODE = """
from envs.expert import play_expert
from envs.metaworld import MetaWorldEnv
print(play_expert(MetaWorldEnv("assembly-v3"), 3)[0]["environment_state"].tobytes().hex())
"""


class TestMetaWorld(EnvContract):
    name = "metaworld"
    kwargs = {"task": "assembly-v3"}


def test_an_episode_does_not_depend_on_the_process_or_on_earlier_episodes():
    fresh = subprocess.run([sys.executable, "-c", FRESH_EPISODE], capture_output=True, text=True, check=True)
    env = MetaWorldEnv("assembly-v3")
    play_expert(env, 1)
    play_expert(env, 2)
    later, success = play_expert(env, 3)
    assert success
    assert later["environment_state"].tobytes().hex() == fresh.stdout.strip()


def test_success_ends_the_episode_and_is_the_score():
    env = envs.make("metaworld", task="assembly-v3")
    env.reset(seed=0)
    terminated = truncated = False
    while not (terminated or truncated):
        assert env.unwrapped.score() == 0.0
        _, _, terminated, truncated, info = env.step(env.unwrapped.expert_action())
    assert (terminated, truncated, info["is_success"], env.unwrapped.score()) == (True, False, True, 1.0)


def test_every_task_has_the_sentence_that_lerobot_tells_a_policy():
    assert set(EXPERTS) <= set(lerobot_instructions())
    assert MetaWorldEnv("faucet-close-v3").instruction == "Rotate the faucet clockwise"


def test_every_task_repeats_its_episodes_with_its_expert():
    assert len(EXPERTS) == 50
    for task in EXPERTS:
        env = MetaWorldEnv(task)
        env.reset(seed=2)
        actions = [env.expert_action()] * 5
        first = play(env, 2, actions)
        play(env, 3, actions[:2])
        assert_equal(play(env, 2, actions), first)


def test_actions_beyond_the_range_are_clipped():
    env = envs.make("metaworld", task="assembly-v3")
    inside, beyond = np.array([1.0, -1.0, 1.0, -1.0]), np.array([7.0, -7.0, 3.0, -2.0])
    assert_equal(play(env, 0, [beyond] * 3), play(env, 0, [inside] * 3))


def test_the_agent_is_the_hand_and_the_world_ends_with_the_goal():
    env = envs.make("metaworld", task="assembly-v3")
    observation, _ = env.reset(seed=0)
    simulator = env.unwrapped._simulator
    hand = np.append(simulator.get_endeff_pos(), 1.0)  # the gripper starts open
    np.testing.assert_allclose(observation["agent_pos"], hand, atol=1e-6)
    np.testing.assert_allclose(observation["environment_state"][-3:], simulator._target_pos, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 501])
def test_an_episode_metaworld_cannot_play_is_refused(steps):
    with pytest.raises(ValueError, match=f"must be in 1..500, got {steps}"):
        envs.make("metaworld", task="assembly-v3", max_episode_steps=steps)


def test_a_misspelt_task_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean assembly-v3"):
        envs.make("metaworld", task="asembly-v3")


def test_an_unknown_camera_is_refused_with_what_exists():
    with pytest.raises(ValueError, match="'corner9': no such camera. Did you mean corner"):
        envs.make("metaworld", task="assembly-v3", camera="corner9")
