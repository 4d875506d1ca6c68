"""AdroitHand: the contract, all four tasks, and what the two parts of an observation are."""

import numpy as np
import pytest

import envs
from envs.adroit import TASKS, AdroitEnv
from tests.contracts_env import EnvContract, assert_equal, play

pytestmark = pytest.mark.sim


class TestAdroit(EnvContract):
    name = "adroit"
    kwargs = {"task": "adroit-door"}


@pytest.mark.parametrize("task, observed", [(task, parts.agent_size) for task, parts in TASKS.items()])
def test_the_agent_is_the_joints_that_actions_move(task, observed):
    env = AdroitEnv(task)
    observation, _ = env.reset(seed=0)
    model, data = env._simulator.model, env._simulator.data
    moved = model.actuator_trnid[:, 0]  # joints, in the order of the actions
    unobserved = 1 if task == "adroit-door" else 0  # ARTz
    joints = model.jnt_qposadr[moved][unobserved:]
    assert len(joints) == observed
    np.testing.assert_allclose(observation["agent_pos"], data.qpos[joints], atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_repeats_its_episodes(task):
    env = AdroitEnv(task)
    env.action_space.seed(7)
    actions = [env.action_space.sample() for _ in range(5)]
    first = play(env, 2, actions)
    play(env, 3, actions[:2])
    assert_equal(play(env, 2, actions), first)


def test_an_episode_ends_with_an_open_door():
    env = envs.make("adroit", task="adroit-door")
    env.reset(seed=0)
    simulator, still = env.unwrapped._simulator, np.zeros(28)
    *_, info = env.step(still)
    assert (info["is_success"], env.unwrapped.score()) == (False, 0.0)
    simulator.data.qpos[simulator.door_hinge_addrs] = 1.5  # it opens from 1.35 rad on
    _, _, terminated, truncated, info = env.step(still)
    assert (terminated, truncated, info["is_success"], env.unwrapped.score()) == (True, False, True, 1.0)


def test_actions_beyond_the_range_are_clipped():
    env = envs.make("adroit", task="adroit-pen")
    assert_equal(play(env, 0, [np.full(24, 7.0)] * 3), play(env, 0, [np.ones(24)] * 3))


def test_an_unknown_camera_is_refused_with_what_exists():
    with pytest.raises(ValueError, match="adroit camera 'top': no such camera. Known: fixed, vil_camera"):
        AdroitEnv("adroit-door", camera="top")


def test_an_episode_needs_a_step():
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        AdroitEnv("adroit-door", max_episode_steps=0)


def test_without_an_expert_the_error_says_how_to_pass_one():
    with pytest.raises(RuntimeError, match=r"no expert; pass one: AdroitEnv\('adroit-pen', expert=DapgExpert.load"):
        AdroitEnv("adroit-pen").expert_action()
