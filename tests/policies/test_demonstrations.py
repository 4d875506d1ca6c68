import numpy as np
import pytest
import zarr
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

from policies.demonstrations import Demonstrations
from tests.crafted import ATTACKS, arm
from tests.policies.models import write_demonstrations


def test_a_replay_buffer_is_read_under_lerobots_names(tmp_path):
    arrays = write_demonstrations(tmp_path / "demo.zarr", lengths=[3, 5])
    demonstrations = Demonstrations.load(tmp_path / "demo.zarr")
    assert list(demonstrations.arrays) == [OBS_STATE, OBS_ENV_STATE, ACTION]
    np.testing.assert_array_equal(demonstrations.arrays[OBS_ENV_STATE], arrays["environment_state"])
    np.testing.assert_array_equal(demonstrations.episode(1)[ACTION], arrays["action"][3:8])
    assert demonstrations.num_episodes == 2
    assert demonstrations.attrs == {"env": "toy", "task": "follow", "control_hz": 10.0}
    assert {key: tuple(feature.shape) for key, feature in demonstrations.features().items()} == {
        OBS_STATE: (3,),
        OBS_ENV_STATE: (5,),
        ACTION: (7,),
    }


def test_stats_are_those_of_every_dimension(tmp_path):
    arrays = write_demonstrations(tmp_path / "demo.zarr", lengths=[3, 5])
    stats = Demonstrations.load(tmp_path / "demo.zarr").stats()[OBS_STATE]
    np.testing.assert_array_equal(stats["min"], arrays["state"].min(0))
    np.testing.assert_array_equal(stats["max"], arrays["state"].max(0))


def test_a_missing_buffer_names_the_command_that_records_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no demonstrations here. Record them: python -m envs.collect"):
        Demonstrations.load(tmp_path / "nothing.zarr")


def test_a_zarr_that_is_no_replay_buffer_is_named_with_what_it_lacks(tmp_path):
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_array("data/state", data=np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"this lacks \['data/action', 'meta/episode_ends'\]"):
        Demonstrations.load(tmp_path / "other.zarr")


def test_actions_that_are_missing_are_not_read_as_zeros(tmp_path):
    write_demonstrations(tmp_path / "demo.zarr", lengths=[3, 5])
    chunks = [file for file in (tmp_path / "demo.zarr" / "data" / "action").rglob("*") if file.name[0].isdigit()]
    next(file for file in chunks if file.is_file()).unlink()
    with pytest.raises(ValueError, match="1 of 1 parts of data/action are missing; copy it again"):
        Demonstrations.load(tmp_path / "demo.zarr")


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("array", ["data/action", "meta/episode_ends"])
def test_opening_crafted_demonstrations_runs_nothing_and_says_so(tmp_path, array, attack):
    write_demonstrations(tmp_path / "demo.zarr", lengths=[3, 5])
    arm(tmp_path / "demo.zarr" / array, ATTACKS[attack], tmp_path / "ran")
    with pytest.raises(
        ValueError, match=f"{array}: holds something else than plain numbers, .* python -m envs.collect"
    ):
        Demonstrations.load(tmp_path / "demo.zarr")
    assert not (tmp_path / "ran").exists()
