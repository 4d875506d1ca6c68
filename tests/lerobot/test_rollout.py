"""`lerobot-rollout` drives a robot with a policy that follows a schedule: between steps, and in real-time chunks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bac

pytest.importorskip("num2words", reason="LeRobot's smolvla needs it")

from tests.lerobot import bench, checkpoints, commands

pytestmark = pytest.mark.slow

PLUGINS = Path(__file__).parent / "plugins"
FOLLOWS, REPLAYS = "bac: SmolVLAPolicy follows", "bac: SmolVLAPolicy replays: "
CHUNK = 12  # actions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.smolvla(tmp_path_factory.mktemp("checkpoint"), chunk_size=CHUNK, n_action_steps=CHUNK)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The robot and `bac`, installed as plug-ins."""
    folder = commands.install(tmp_path_factory.mktemp("site"), "lerobot_robot_simulated", PLUGINS / "robot.py")
    return commands.install(folder, "lerobot_policy_bac")


def drive(checkpoint: Path, site: Path, folder: Path, *options: str, **environment: str) -> tuple[str, list[object]]:
    """Ten control steps a second until a second chunk is on its way; what was said, and what became of the robot."""
    diary = folder / "diary"
    arguments = [f"--policy.path={checkpoint}", "--policy.device=cpu", "--robot.type=simulated", "--play_sounds=false"]
    arguments += [f"--robot.diary={diary}", f"--robot.calibration_dir={folder}", "--task=push the block", "--fps=10"]
    arguments += ["--return_to_initial_position=false", *options]
    module, paths = "lerobot.scripts.lerobot_rollout", [site, commands.ROOT]
    command = commands.start(module, *arguments, folder=folder, log="log", paths=paths, **environment)
    try:
        moved = commands.wait_until(lambda: len(bench.events(diary)) > CHUNK + 2, 300)
        assert moved, command.output()[-3000:]
        command.interrupt()
        said = command.finish()
    finally:
        command.kill()
    return said, bench.events(diary)


ENGINES = [(), ("--inference.type=rtc", "--inference.rtc.execution_horizon=6")]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_robot_is_driven_by_a_policy_that_follows_its_schedule(checkpoint, site, tmp_path, engine):
    said, diary = drive(checkpoint, site, tmp_path, *engine)
    assert FOLLOWS in said and "16 of 56 updates in 8 blocks and 7 denoising steps" in said
    assert ("RTC inference thread started" in said) == bool(engine)
    assert REPLAYS in said and ("; guided " in said) == bool(engine)
    assert "error" not in said.lower()
    assert diary[0] == "connect" and diary[-1] == "disconnect"
    assert "Rollout finished" in said


@pytest.mark.parametrize("engine", ENGINES)
def test_a_robot_is_driven_by_a_solver_of_few_steps(checkpoint, site, tmp_path, engine):
    few = shutil.copytree(checkpoint, tmp_path / "few")
    bac.Denoising(solver="Euler", timesteps=(0.8, 0.2, 0.05)).save(few / "bac.json")
    said, diary = drive(few, site, tmp_path, *engine)
    assert FOLLOWS in said and "Euler, 3 steps" in said
    assert ("RTC inference thread started" in said) == bool(engine)
    assert "error" not in said.lower()
    assert diary[-1] == "disconnect"


@pytest.mark.parametrize("engine", ENGINES)
def test_with_nothing_configured_a_robot_is_driven_by_the_policy_as_it_is_replayed(checkpoint, site, tmp_path, engine):
    dense = shutil.copytree(checkpoint, tmp_path / "dense")
    (dense / "bac.json").unlink()
    said, diary = drive(dense, site, tmp_path, *engine)
    assert FOLLOWS not in said and REPLAYS in said and ", same actions" in said
    assert ("; guided " in said) == bool(engine)
    assert "error" not in said.lower()
    assert diary[-1] == "disconnect"


def test_switched_off_the_same_command_drives_the_policy_as_it_is(checkpoint, site, tmp_path):
    said, diary = drive(checkpoint, site, tmp_path, BAC="off")
    assert FOLLOWS not in said and REPLAYS not in said
    assert diary[-1] == "disconnect"
