"""Push-T as a robot of LeRobot, driven by the shipped policy with its schedule: by LeRobot's engine, and by ours."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("gym_pusht")

from tests.lerobot import bench, commands, pusht

pytestmark = [pytest.mark.slow, pytest.mark.sim]

REACH = 130.0  # how far from the pusher this policy places its target [pixels], of a table of 512


def test_lerobot_rollout_pushes_the_block_with_a_policy_that_follows_its_schedule(tmp_path):
    path, diary, paths = pusht.checkpoint(tmp_path / "checkpoint"), tmp_path / "diary", pusht.site(tmp_path / "site")
    arguments = [f"--policy.path={path}", "--policy.device=cpu", "--robot.type=pusht", "--play_sounds=false"]
    arguments += [f"--robot.diary={diary}", f"--robot.calibration_dir={tmp_path}", "--task=push the block", "--fps=10"]
    arguments += ["--return_to_initial_position=false"]
    command = commands.start("lerobot.scripts.lerobot_rollout", *arguments, folder=tmp_path, log="log", paths=paths)
    try:
        assert commands.wait_until(lambda: len(pusht.actions(diary)) > 2 * pusht.CHUNK, 500), command.output()[-3000:]
        command.interrupt()
        said = command.finish()
    finally:
        command.kill()
    assert pusht.FOLLOWS in said and "in 24 blocks and 100 denoising steps" in said
    assert "Rollout finished" in said and "error" not in said.lower()
    assert bench.events(diary)[0] == "connect" and bench.events(diary)[-1] == "disconnect"
    looks_like_pushing(pusht.actions(diary))


def test_the_control_loop_drives_the_same_robot(tmp_path):
    path, diary = pusht.checkpoint(tmp_path / "checkpoint", history=2), tmp_path / "diary"
    command = commands.start(
        "tests.lerobot.pusht_control_loop", path, diary, folder=tmp_path, log="log", paths=[commands.ROOT]
    )
    measured = json.loads(command.finish().splitlines()[-1])
    assert measured["num_chunks"] >= 2
    assert bench.events(diary)[-1] == "disconnect"
    assert len(pusht.actions(diary)) == measured["num_steps"] <= 24
    looks_like_pushing(pusht.actions(diary))


def looks_like_pushing(given: np.ndarray) -> None:
    """What an observation in the wrong unit or order would not give: targets on the table, near where the pusher is."""
    assert np.all((given >= 0) & (given <= 512))
    pusher, aim = given[:-1, 2:], given[1:, :2]
    assert np.median(np.linalg.norm(aim - pusher, axis=1)) < REACH
    assert np.linalg.norm(given[-1, 2:] - given[0, 2:]) > 1  # it went somewhere
