"""What drives LeRobot's Push-T robot in tests: the shipped policy, with the schedule its results were made with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tests.lerobot import bench, commands

FOLLOWS = "bac: DiffusionTransformerPolicy follows"
CHUNK = 8  # actions that it executes


def checkpoint(path: Path, *, history: int = 1) -> Path:
    """A copy of the policy for `plugins/pusht.py`, whose preprocessor takes the robot's state apart."""
    shutil.copytree(commands.ROOT / "policies" / "checkpoints" / "pusht", path)
    shutil.copy(commands.ROOT / "results" / "pusht" / "bac_schedule.json", path / "bac.json")
    pipeline = path / "policy_preprocessor.json"
    recipe = json.loads(pipeline.read_text())
    recipe["steps"].insert(2, {"registry_name": "pusht_split_state", "config": {"history": history}})
    pipeline.write_text(json.dumps(recipe))
    return path


def site(folder: Path) -> list[Path]:
    """The robot and `bac`, installed as plug-ins; the places to import from."""
    commands.install(folder, "lerobot_robot_pusht", Path(__file__).parent / "plugins" / "pusht.py")
    return [commands.install(folder, "lerobot_policy_bac"), commands.ROOT]


def actions(diary: Path) -> np.ndarray:
    """Targets, and where the pusher then was, `[., 4]` [pixels]."""
    return np.array(bench.actions(diary)).reshape(-1, 4)
