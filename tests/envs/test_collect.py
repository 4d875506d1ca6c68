"""`python -m envs.collect`, from the command line to the file."""

import subprocess
import sys
from pathlib import Path

import pytest

from envs.replay_buffer import ReplayBuffer

pytestmark = [pytest.mark.sim, pytest.mark.slow]
EXCERPT = Path(__file__).parent / "pusht_human_excerpt.npz"


def collect(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "envs.collect", *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_scripted_expert_is_recorded(tmp_path):
    output = tmp_path / "push.zarr"
    done = collect("env=metaworld", "task=push-wall-v3", "episodes=2", f"output={output}")
    assert "push-wall-v3: kept 2 of 2 attempts" in done.stdout, done.stderr
    buffer = ReplayBuffer.load(output)
    assert (buffer.num_episodes, buffer.attrs["task"]) == (2, "push-wall-v3")
    assert {name: array.shape[1] for name, array in buffer.arrays.items()} == {
        "state": 4,
        "environment_state": 35,
        "action": 4,
    }


def test_several_tasks_are_recorded_by_one_command(tmp_path):
    done = collect("-m", "task=reach-v3,door-open-v3", "episodes=1", f"output={tmp_path}/${{task}}.zarr")
    assert done.returncode == 0, done.stderr
    told = {ReplayBuffer.load(path).attrs["instruction"] for path in tmp_path.glob("*.zarr")}
    assert told == {"Reach a goal position", "Open a door with a revolving joint"}


def test_the_scripted_controller_of_so101_is_recorded(tmp_path):
    output = tmp_path / "so101.zarr"
    done = collect("env=so101", "episodes=2", "noise=0.05", f"output={output}")
    assert "so101-pick-place: kept 2 of 2 attempts" in done.stdout, done.stderr
    buffer = ReplayBuffer.load(output)
    told = {"instruction": "Pick up the block and place it on the goal"}
    assert buffer.attrs == {"env": "so101", "task": "so101-pick-place", "control_hz": 10.0, **told}
    assert {name: array.shape[1] for name, array in buffer.arrays.items()} == {
        "state": 14,
        "environment_state": 6,
        "action": 4,
    }


def test_the_human_demonstrations_are_converted(tmp_path):
    done = collect("env=pusht", f"source={EXCERPT}", f"output={tmp_path / 'pusht.zarr'}")
    assert "3 episodes, 165 control steps" in done.stdout, done.stderr
    assert ReplayBuffer.load(tmp_path / "pusht.zarr").num_episodes == 3


def test_missing_experts_are_answered_with_what_they_are_and_the_line_to_type():
    done = collect("env=adroit", "task=adroit-pen")
    assert done.returncode == 1
    assert "aravindr93/hand_dapg publishes (Apache-2.0), named pen/in_shift, pen/in_scale, pen/w0" in done.stderr
    assert "python -m envs.collect env=adroit task=adroit-pen source=adroit_experts.npz" in done.stderr


def test_a_missing_source_is_answered_with_the_line_to_type():
    done = collect("env=pusht")
    assert done.returncode == 1
    assert "python -m envs.collect env=pusht source=pusht_cchi_v7_replay.zarr" in done.stderr
