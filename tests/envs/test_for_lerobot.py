"""The worlds as LeRobot sees them."""

import numpy as np
import pytest
from lerobot.configs import FeatureType
from lerobot.envs import EnvConfig, make_env, make_env_pre_post_processors, preprocess_observation
from lerobot.envs.utils import env_to_policy_features

import envs
from envs import for_lerobot

pytestmark = [pytest.mark.slow, pytest.mark.sim]


def test_every_world_is_a_type_of_environment():
    registered = EnvConfig.get_known_choices()
    ours = {cls.name: name for name, cls in registered.items() if issubclass(cls, for_lerobot.World)}
    assert ours == {name: f"bac_{name}" for name in envs.ENVIRONMENTS}


def test_a_policy_of_states_gets_the_observation_of_the_world_itself():
    vector = make_env(for_lerobot.Adroit(task="adroit-hammer"), n_envs=2)["bac_adroit"][0]
    observed, _ = vector.reset(seed=[3, 4])
    itself, _ = envs.make("adroit", task="adroit-hammer").reset(seed=4)
    batch = preprocess_observation(observed)
    assert np.array_equal(batch["observation.state"][1], itself["agent_pos"])
    assert np.array_equal(batch["observation.environment_state"][1], itself["environment_state"])
    vector.close()


def test_a_policy_that_sees_gets_both_cameras_and_no_state_of_the_simulator():
    config = for_lerobot.SO101(pixels=24, wrist=True)
    vector = make_env(config)["bac_so101"][0]
    observed, _ = vector.reset(seed=[0])
    before, _ = make_env_pre_post_processors(config, None)
    batch = before({**preprocess_observation(observed), "task": ["words"]})
    shapes = {key: tuple(value.shape) for key, value in batch.items() if key.startswith("observation.")}
    assert shapes == {
        "observation.state": (1, 14),
        "observation.image": (1, 3, 24, 24),
        "observation.images.wrist": (1, 3, 24, 24),
    }
    assert not np.array_equal(batch["observation.image"], batch["observation.images.wrist"])
    assert vector.call("task_description") == ("Pick up the block and place it on the goal",)
    vector.close()


def test_the_features_are_those_that_the_observation_has():
    features = env_to_policy_features(for_lerobot.SO101(pixels=24, wrist=True))
    assert {key: (feature.type, feature.shape) for key, feature in features.items()} == {
        "action": (FeatureType.ACTION, (4,)),
        "observation.state": (FeatureType.STATE, (14,)),
        "observation.image": (FeatureType.VISUAL, (3, 24, 24)),
        "observation.images.wrist": (FeatureType.VISUAL, (3, 24, 24)),
    }


def test_one_camera_alone_is_called_the_image():
    features = env_to_policy_features(for_lerobot.PushT(pixels=24))
    assert list(features) == ["action", "observation.state", "observation.image"]


def test_the_time_limit_and_the_rate_are_the_world_s_own_unless_told():
    assert make_env(for_lerobot.PushT())["bac_pusht"][0].call("_max_episode_steps") == (300,)
    config = for_lerobot.PushT(max_episode_steps=7)
    assert make_env(config)["bac_pusht"][0].call("_max_episode_steps") == (7,)
    assert config.fps == 10


def test_success_is_told_where_lerobot_looks_for_it():
    vector = make_env(for_lerobot.PushT(max_episode_steps=1))["bac_pusht"][0]
    vector.reset(seed=[0])
    *_, info = vector.step(np.full((1, 2), 256.0))
    assert info["final_info"]["is_success"].tolist() == [False]


def test_worlds_in_processes_of_their_own_see_and_end_one_by_one():
    config = for_lerobot.SO101(pixels=24, wrist=True, max_episode_steps=2)
    vector = make_env(config, n_envs=2, use_async_envs=True)["bac_so101"][0]
    observed, _ = vector.reset(seed=[0, 1])
    assert observed["pixels"]["wrist"].shape == (2, 24, 24, 3) and observed["pixels"]["wrist"].any()
    assert vector.call("_max_episode_steps") == (2, 2)
    for ended in (False, True):
        *_, truncated, info = vector.step(np.zeros((2, 4), np.float32))
        assert truncated.tolist() == [ended, ended] and ("final_info" in info) == ended
    vector.close()


def test_an_unknown_task_and_a_missing_camera_are_told_in_the_world_s_words():
    with pytest.raises(ValueError, match="adroit task 'adroit-dor': no such task. Did you mean adroit-door"):
        make_env(for_lerobot.Adroit(task="adroit-dor"))
    with pytest.raises(ValueError, match="wrist: so101 has a camera on the wrist"):
        make_env(for_lerobot.PushT(pixels=24, wrist=True))
