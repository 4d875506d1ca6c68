"""Pictures as a part of the observation."""

import gymnasium as gym
import numpy as np
import pytest

import envs
from envs.expert import record_expert

pytestmark = pytest.mark.sim


def drawing(name: str, size: int, **kwargs) -> gym.Env:
    env = envs.make(name, pixels=size, **kwargs)
    try:
        env.reset(seed=0)
    except RuntimeError as error:
        pytest.skip(str(error))
    return env


@pytest.mark.parametrize(
    "name, task",
    [("adroit", "adroit-door"), ("metaworld", "assembly-v3"), ("pusht", "pusht"), ("so101", "so101-pick-place")],
)
def test_every_world_can_add_a_picture_of_what_is_seen(name, task):
    env = drawing(name, 24, task=task)
    seen, _ = env.reset(seed=0)
    assert set(seen) == {"agent_pos", "environment_state", "pixels"}
    for _ in range(2):
        assert env.observation_space.contains(seen)
        np.testing.assert_array_equal(seen["pixels"], env.unwrapped.picture())
        seen, *_ = env.step(env.action_space.sample())
    env.close()


def test_pictures_are_recorded_beside_the_state():
    env = drawing("metaworld", 20, task="assembly-v3")
    buffer, _ = record_expert(env, 1, progress=False)
    pixels = buffer.arrays["pixels"]
    assert (pixels.shape, pixels.dtype) == ((buffer.episode_ends[-1], 20, 20, 3), np.uint8)
    env.reset(seed=100_000)
    np.testing.assert_array_equal(pixels[0], env.unwrapped.picture())
    env.close()


def test_one_picture_of_a_few_is_drawn_and_the_rest_is_the_same_recording():
    env = drawing("metaworld", 20, task="assembly-v3")
    every, _ = record_expert(env, 2, noise=0.1, progress=False)
    some, _ = record_expert(env, 2, noise=0.1, draw_every=8, progress=False)
    drawn = some.arrays["drawn"]
    second = every.episode_ends[0]
    assert np.flatnonzero(drawn[:second]).tolist() == list(range(100_000 % 8, second, 8))
    assert np.flatnonzero(drawn[second:]).tolist() == list(range(100_001 % 8, len(drawn) - second, 8))
    np.testing.assert_array_equal(some.arrays["pixels"][drawn], every.arrays["pixels"][drawn])
    assert not some.arrays["pixels"][~drawn].any()
    np.testing.assert_array_equal(some.arrays["action"], every.arrays["action"])
    assert env.reset(seed=0)[0]["pixels"].any()  # the world draws again
    env.close()


def test_a_world_without_pictures_has_none_to_leave_out():
    with pytest.raises(ValueError, match="draw_every.*pixels=96"):
        record_expert(envs.make("metaworld", task="assembly-v3"), 1, draw_every=2)


def test_the_goal_of_so101_is_in_the_picture():
    env = drawing("so101", 60)
    green = []
    for seed in range(2):
        pixels = env.reset(seed=seed)[0]["pixels"].astype(int)
        green.append((pixels[..., 1] > pixels[..., 0] + 60) & (pixels[..., 1] > pixels[..., 2] + 60))
    assert [mark.sum() > 5 for mark in green] == [True, True]
    assert (green[0] & green[1]).sum() == 0  # it is elsewhere in another episode
    env.close()


def test_the_second_camera_is_on_the_wrist_and_is_recorded():
    env = drawing("so101", 20, wrist=True)
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    np.testing.assert_array_equal(seen["pixels_wrist"], env.unwrapped.wrist_picture())
    buffer, _ = record_expert(env, 1, progress=False)
    assert buffer.arrays["pixels_wrist"].shape == buffer.arrays["pixels"].shape
    yellow = (buffer.arrays["pixels_wrist"].astype(int)[..., 0] > 100).mean((1, 2))
    assert yellow.min() > 0.1  # the jaws are in every picture
    env.close()


def test_a_push_t_policy_does_not_see_the_cross_of_a_film():
    env = envs.make("pusht", pixels=96)
    env.reset(seed=0)
    seen = env.step(np.array([256.0, 256.0]))[0]["pixels"].astype(int)
    film = env.render().astype(int)
    red = [((picture[..., 0] - picture[..., 1:].max(-1)) > 200).sum() for picture in (seen, film)]
    assert (red[0], red[1] > 5) == (0, True)


def test_a_picture_has_a_pixel():
    with pytest.raises(ValueError, match="pixels: must be at least 1, or None for no pictures, got 0"):
        envs.make("pusht", pixels=0)


@pytest.mark.parametrize(("name", "pixels"), [("pusht", 20), ("so101", None)])
def test_a_camera_on_the_wrist_needs_a_wrist_and_a_size(name, pixels):
    with pytest.raises(ValueError, match=f"so101 has a camera on the wrist, .* Got env '{name}' and pixels={pixels}"):
        envs.make(name, pixels=pixels, wrist=True)
