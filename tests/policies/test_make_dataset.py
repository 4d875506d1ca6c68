import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_STATE

import policies
from policies.demonstrations import OBS_WRIST, Demonstrations
from policies.make_dataset import make_dataset
from tests.policies.models import observations, write_demonstrations

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dataset(tmp_path):
    arrays = write_demonstrations(tmp_path / "demo.zarr", lengths=[23, 19])
    make_dataset(Demonstrations.load(tmp_path / "demo.zarr"), tmp_path / "follow")
    return arrays, tmp_path / "follow"


@pytest.mark.slow
def test_the_dataset_holds_every_step_under_its_episode(dataset):
    arrays, root = dataset
    read = LeRobotDataset("local/follow", root=root)
    assert (read.num_episodes, read.num_frames, read.fps) == (2, 42, 10)
    np.testing.assert_array_equal(np.stack([read[i][OBS_STATE] for i in range(42)]), arrays["state"])
    np.testing.assert_array_equal(np.stack([read[i][ACTION] for i in range(42)]), arrays["action"])
    assert [int(read[i]["episode_index"]) for i in (0, 22, 23, 41)] == [0, 0, 1, 1]
    assert read[41]["task"] == "follow"


@pytest.mark.slow
def test_the_dataset_has_the_pictures_that_were_recorded(tmp_path):
    write_demonstrations(tmp_path / "demo.zarr", lengths=[3, 2])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 11, 13, 3), dtype=np.uint8)
    for name, seen in zip(("pixels", "pixels_wrist"), pictures, strict=True):
        zarr.open_group(tmp_path / "demo.zarr").create_array(f"data/{name}", data=seen)
    assert Demonstrations.load(tmp_path / "demo.zarr").pictures is None
    make_dataset(Demonstrations.load(tmp_path / "demo.zarr", pictures=True), tmp_path / "seen")
    read = LeRobotDataset("local/seen", root=tmp_path / "seen")
    images = np.stack([[read[i][key] for i in range(5)] for key in (OBS_IMAGE, OBS_WRIST)])  # in [0, 1], channels first
    np.testing.assert_array_equal((255 * images).round().transpose(0, 1, 3, 4, 2), pictures)


def test_a_recording_that_lacks_pictures_is_refused_before_anything_is_written(tmp_path):
    write_demonstrations(tmp_path / "demo.zarr", lengths=[3])
    group = zarr.open_group(tmp_path / "demo.zarr")
    group.create_array("data/pixels", data=np.ones((3, 4, 4, 3), np.uint8))
    group.create_array("data/drawn", data=np.array([True, False, True]))
    demonstrations = Demonstrations.load(tmp_path / "demo.zarr", pictures=True)
    assert len(demonstrations.pictures) == 2
    with pytest.raises(ValueError, match="2 of 3 control steps .* draw_every=1"):
        make_dataset(demonstrations, tmp_path / "seen")
    assert not (tmp_path / "seen").exists()


@pytest.mark.slow
def test_lerobots_trainer_trains_dp_t_and_the_checkpoint_loads(dataset, tmp_path):
    _, root = dataset
    command = [
        str(Path(sys.executable).parent / "lerobot-train"),
        "--policy.discover_packages_path=policies",
        "--policy.type=diffusion_transformer",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        "--policy.n_layer=1",
        "--policy.n_head=2",
        "--policy.n_emb=26",
        "--dataset.repo_id=local/follow",
        f"--dataset.root={root}",
        f"--output_dir={tmp_path / 'run'}",
        "--steps=3",
        "--batch_size=5",
        "--num_workers=0",
        "--save_freq=3",
        "--wandb.enable=false",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)
    assert finished.returncode == 0, finished.stderr[-3000:]
    loaded = policies.load(tmp_path / "run/checkpoints/last/pretrained_model")
    noise = torch.zeros(3, 16, 7)
    assert loaded.policy.predict_action_chunk(observations(3), noise=noise).shape == (3, 8, 7)
    assert loaded.policy.config.n_emb == 26
