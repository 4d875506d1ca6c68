"""The replay buffer: what goes in comes out, and what is broken is refused."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.replay_buffer import ReplayBuffer
from tests.crafted import ATTACKS, arm


def buffer(lengths=(3, 2)) -> ReplayBuffer:
    total = sum(lengths)
    state = np.arange(total * 7, dtype=np.float32).reshape(total, 7)
    action = np.arange(total * 5, dtype=np.float32).reshape(total, 5)
    return ReplayBuffer({"state": state, "action": action}, np.cumsum(lengths), {"env": "line", "control_hz": 11.0})


def test_saving_and_loading_changes_nothing(tmp_path):
    saved = buffer()
    saved.save(tmp_path / "new" / "line.zarr")
    loaded = ReplayBuffer.load(tmp_path / "new" / "line.zarr")
    assert loaded.attrs == saved.attrs
    assert loaded.episode_ends.tolist() == [3, 5]
    assert sorted(loaded.arrays) == ["action", "state"]
    for name, array in saved.arrays.items():
        assert loaded.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_the_layout_on_disk_is_diffusion_policy_s(tmp_path):
    buffer().save(tmp_path / "line.zarr")
    group = zarr.open_group(tmp_path / "line.zarr", mode="r", zarr_format=2)
    assert (group["data/state"].shape, group["data/action"].shape) == ((5, 7), (5, 5))
    assert group["meta/episode_ends"][:].tolist() == [3, 5]


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    buffer().save(tmp_path / "line.zarr")
    buffer((2,)).save(tmp_path / "line.zarr")
    assert ReplayBuffer.load(tmp_path / "line.zarr").episode_ends.tolist() == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["line.zarr"]


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=7))
def test_episodes_are_what_they_were_made_of(lengths):
    whole = buffer(lengths)
    episodes = [whole.episode(index) for index in range(whole.num_episodes)]
    assert [len(episode["action"]) for episode in episodes] == lengths
    again = ReplayBuffer.from_episodes(episodes, whole.attrs)
    assert again.episode_ends.tolist() == whole.episode_ends.tolist()
    np.testing.assert_array_equal(again.arrays["state"], whole.arrays["state"])


@pytest.mark.parametrize("ends", [[], [0, 5], [5, 3], [3, 3, 5], [[3, 5]]])
def test_ends_that_do_not_increase_are_refused(ends):
    with pytest.raises(ValueError, match="episode_ends: must increase from above 0"):
        ReplayBuffer({"action": np.zeros((5, 2))}, np.array(ends))


def test_an_array_of_another_length_is_refused():
    with pytest.raises(ValueError, match="action: must have 5 rows, the last episode end, got 7"):
        ReplayBuffer({"action": np.zeros((7, 2))}, np.array([3, 5]))


def test_a_number_that_is_not_finite_is_refused():
    action = np.zeros((5, 2))
    action[3, 1] = np.inf
    with pytest.raises(ValueError, match=r"action: must be finite, row 3 is \[ 0. inf\]"):
        ReplayBuffer({"action": action}, np.array([3, 5]))


def test_a_missing_folder_is_answered_with_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m envs.collect env=metaworld"):
        ReplayBuffer.load(tmp_path / "nothing.zarr")


def test_a_zarr_group_of_another_kind_is_refused(tmp_path):
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_group("images")
    with pytest.raises(ValueError, match=r"this has \['images'\]"):
        ReplayBuffer.load(tmp_path / "other.zarr")


def test_a_part_that_is_missing_is_not_read_as_zeros_and_zeros_are(tmp_path):
    zeros = np.zeros((5, 7), np.float32)
    ReplayBuffer({"state": zeros, "action": zeros}, [3, 5]).save(tmp_path / "line.zarr")
    assert not ReplayBuffer.load(tmp_path / "line.zarr").arrays["action"].any()
    (tmp_path / "line.zarr" / "data" / "action" / "0.0").unlink()
    with pytest.raises(ValueError, match="1 of 1 parts of data/action are missing; copy it again"):
        ReplayBuffer.load(tmp_path / "line.zarr")


@pytest.mark.parametrize("attack", ATTACKS)
def test_opening_a_crafted_buffer_runs_nothing_and_says_so(tmp_path, attack):
    buffer().save(tmp_path / "line.zarr")
    arm(tmp_path / "line.zarr" / "data" / "state", ATTACKS[attack], tmp_path / "ran")
    with pytest.raises(ValueError, match="data/state: holds something else than plain numbers, .* nothing was decoded"):
        ReplayBuffer.load(tmp_path / "line.zarr")
    assert not (tmp_path / "ran").exists()


def test_an_array_behind_a_link_is_looked_at_too_and_a_circle_ends(tmp_path):
    buffer().save(tmp_path / "line.zarr")
    arm(tmp_path / "line.zarr" / "data" / "state", ATTACKS["objects"], tmp_path / "ran")
    (tmp_path / "line.zarr" / "data" / "state").rename(tmp_path / "elsewhere")
    (tmp_path / "line.zarr" / "data" / "state").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "line.zarr" / "circle").symlink_to(tmp_path / "line.zarr")
    with pytest.raises(ValueError, match="data/state: holds something else than plain numbers"):
        ReplayBuffer.load(tmp_path / "line.zarr")


def test_a_description_that_is_damaged_is_named(tmp_path):
    buffer().save(tmp_path / "line.zarr")
    (tmp_path / "line.zarr" / "data" / "state" / ".zarray").write_bytes(b"\xff{")
    with pytest.raises(ValueError, match=r"data/state/\.zarray: cannot be read .* record or download the folder again"):
        ReplayBuffer.load(tmp_path / "line.zarr")


def test_a_save_that_stops_at_the_last_moment_puts_the_old_buffer_back(tmp_path, monkeypatch):
    buffer().save(tmp_path / "line.zarr")
    rename = Path.rename

    def stops(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", stops)
        buffer((2,)).save(tmp_path / "line.zarr")
    assert ReplayBuffer.load(tmp_path / "line.zarr").episode_ends.tolist() == [3, 5]
    assert [child.name for child in tmp_path.iterdir()] == ["line.zarr"]
