"""Push-T: the contract, and demonstrations that look as the live world does.

`pusht_human_excerpt.npz` holds the three shortest of the 206 human episodes, as published.
"""

from pathlib import Path

import numpy as np
import pytest
import zarr

import envs
from envs.pusht import PushTEnv, keypoints, load_human_demonstrations, pictures, place
from tests.contracts_env import EnvContract

EXCERPT = Path(__file__).parent / "pusht_human_excerpt.npz"


@pytest.mark.sim
class TestPushT(EnvContract):
    name = "pusht"
    kwargs = {"task": "pusht"}

    def test_frames_have_the_size_asked_for(self):
        env = self.make(width=64, height=48)
        env.reset(seed=0)
        frame = env.render()
        assert (frame.shape, frame.dtype) == ((48, 64, 3), np.uint8)


@pytest.fixture
def recorded():
    with np.load(EXCERPT) as archive:
        return dict(archive)


def test_keypoints_of_an_upright_block():
    # The bar is 120 x 30 below the origin's line, the stem 30 x 90 below the bar; y points down.
    bar = {(196, 330), (316, 330), (316, 300), (196, 300)}
    stem = {(241, 330), (241, 420), (271, 420), (271, 330)}
    corners = keypoints(np.array([[256.0, 300.0, 0.0]])).reshape(8, 2)
    assert {tuple(corner) for corner in corners[:4].tolist()} == bar
    assert {tuple(corner) for corner in corners[4:].tolist()} == stem


def test_keypoints_turn_about_the_block_s_origin():
    upright, turned = keypoints(np.array([[100.0, 200.0, 0.0], [100.0, 200.0, np.pi / 2]])).reshape(2, 8, 2)
    x, y = (upright - [100, 200]).T
    np.testing.assert_allclose(turned, np.stack([100 - y, 200 + x], axis=1), atol=1e-4)


@pytest.mark.sim
def test_replayed_actions_give_the_observations_of_the_demonstrations(recorded):
    buffer = load_human_demonstrations(EXCERPT)
    starts = recorded["state"][np.append(0, buffer.episode_ends[:-1])]
    for index, start in enumerate(starts):
        episode = buffer.episode(index)
        env = PushTEnv()
        env.reset(seed=0)
        start_from(env, start)
        live = [env.step(action)[0] for action in episode["action"][:-1]]
        for name, key in {"agent_pos": "state", "environment_state": "environment_state"}.items():
            np.testing.assert_allclose(
                np.stack([seen[name] for seen in live]), episode[key][1:], atol=1e-3, err_msg=f"{index} {name}"
            )


@pytest.mark.sim
def test_score_is_the_best_coverage_of_the_episode(recorded):
    buffer = load_human_demonstrations(EXCERPT)
    env = PushTEnv()
    env.reset(seed=0)
    start_from(env, recorded["state"][0])
    steps = [env.step(action) for action in buffer.episode(0)["action"]]
    assert env.score() == max(reward for _, reward, *_ in steps)
    assert env.score() == pytest.approx(max(info["coverage"] for *_, info in steps) / 0.95, abs=1e-12)
    assert not any(terminated for _, _, terminated, _, _ in steps)


@pytest.mark.sim
def test_success_ends_the_episode_with_a_full_score():
    env = envs.make("pusht")
    env.reset(seed=0)
    start_from(env.unwrapped, [400, 100, 256, 256, np.pi / 4])  # the block lies on the goal
    _, reward, terminated, _, info = env.step(np.array([400, 100]))
    assert (reward, terminated, info["is_success"], env.unwrapped.score()) == (1.0, True, True, 1.0)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_public_zarr_and_the_npz_give_one_buffer(recorded, tmp_path, zarr_format):
    group = zarr.open_group(tmp_path / "replay.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("data/state", data=recorded["state"])
    group.create_array("data/action", data=recorded["action"])
    group.create_array("meta/episode_ends", data=recorded["episode_ends"])
    from_zarr, from_npz = load_human_demonstrations(tmp_path / "replay.zarr"), load_human_demonstrations(EXCERPT)
    assert from_zarr.attrs == from_npz.attrs == {"env": "pusht", "task": "pusht", "control_hz": 10.0}
    assert from_zarr.episode_ends.tolist() == from_npz.episode_ends.tolist()
    for name, array in from_npz.arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(from_zarr.arrays[name], array)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"action": None}, r"this lacks \['data/action'\]"),
        ({"state": np.zeros((3, 2))}, r"data/state must be \[n, 5\], got \[3, 2\]"),
    ],
)
def test_other_data_is_refused(recorded, tmp_path, change, message):
    arrays = {name: array for name, array in {**recorded, **change}.items() if array is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_human_demonstrations(tmp_path / "other.npz")


def test_pictures_of_recorded_states_are_those_that_a_policy_sees_live():
    env = PushTEnv(width=48, height=48)
    env.reset(seed=0)
    simulator, states, live = env._simulator, [], []
    for target in np.linspace((100.0, 100.0), (300.0, 330.0), 7):
        env.step(target)
        states.append([*simulator.agent.position, *simulator.block.position, simulator.block.angle])
        live.append(env.picture())
    np.testing.assert_array_equal(pictures(np.array(states), 48), live)


def test_demonstrations_have_pictures_if_they_are_asked_for(recorded):
    drawn = load_human_demonstrations(EXCERPT, pixels=24).arrays["pixels"]
    np.testing.assert_array_equal(drawn[[0, 100]], pictures(recorded["state"][[0, 100]], 24))


def start_from(env: PushTEnv, state) -> None:
    """Put effector and block where a recorded episode starts and let the physics settle once, as a reset does."""
    simulator = env._simulator
    simulator._setup()
    simulator.agent.position = tuple(map(float, state[:2]))
    place(simulator.block, state[2:])
    simulator.space.step(simulator.dt)
