"""Recording scripted experts."""

import numpy as np
import pytest

from envs.expert import play_expert, record_expert
from envs.metaworld import MetaWorldEnv

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def env():
    return MetaWorldEnv("assembly-v3")


def test_replaying_the_recorded_actions_succeeds_with_the_last(env):
    buffer, attempts = record_expert(env, 2, progress=False)
    assert (buffer.num_episodes, attempts) == (2, 2)
    told = {"instruction": "Pick up a nut and place it onto a peg"}
    assert buffer.attrs == {"env": "metaworld", "task": "assembly-v3", "control_hz": 80.0, **told}
    for index in range(2):
        episode = buffer.episode(index)
        seen, _ = env.reset(seed=100_000 + index)
        succeeded = []
        for step, action in enumerate(episode["action"]):
            np.testing.assert_array_equal(episode["state"][step], seen["agent_pos"])
            np.testing.assert_array_equal(episode["environment_state"][step], seen["environment_state"])
            seen, *_, info = env.step(action)
            succeeded.append(info["is_success"])
        assert succeeded == [False] * (len(succeeded) - 1) + [True]


def test_recorded_actions_are_float32_in_the_range_of_actions(env):
    action = play_expert(env, 0)[0]["action"]
    assert (action.dtype, action.min(), action.max()) == (np.float32, -1.0, 1.0)


def test_noise_disturbs_the_world_and_not_the_label(env):
    clean, noisy = play_expert(env, 0)[0], play_expert(env, 0, noise=0.3)[0]
    np.testing.assert_array_equal(noisy["action"][0], clean["action"][0])
    env.reset(seed=0)
    executed = clean["action"][0] + 0.3 * np.random.default_rng(0).standard_normal(4)
    np.testing.assert_array_equal(noisy["state"][1], env.step(executed)[0]["agent_pos"])
    np.testing.assert_array_equal(play_expert(env, 0, noise=0.3)[0]["state"], noisy["state"])


def test_failed_attempts_are_counted_and_dropped():
    short = MetaWorldEnv("assembly-v3", max_episode_steps=86)  # seeds 100000.. need 83 to 99 steps
    buffer, attempts = record_expert(short, 2, progress=False)
    lengths = np.diff(buffer.episode_ends, prepend=0)
    assert attempts > 2
    assert (lengths <= 86).all()


def test_an_expert_that_never_succeeds_is_given_up():
    hopeless = MetaWorldEnv("assembly-v3", max_episode_steps=2)
    with pytest.raises(RuntimeError, match="succeeded in 0 of 10 attempts with noise=0.0"):
        record_expert(hopeless, 1, progress=False)


@pytest.mark.parametrize("episodes, noise", [(0, 0.0), (1, -0.1)])
def test_a_request_without_sense_is_refused(env, episodes, noise):
    with pytest.raises(ValueError, match="need num_episodes >= 1 and noise >= 0"):
        record_expert(env, episodes, noise=noise)
