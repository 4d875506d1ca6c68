"""Drive LeRobot's Push-T robot by `bac.ControlLoop`: ``python -m tests.lerobot.pusht_control_loop CHECKPOINT DIARY``.

What a script of one's own does where LeRobot's engines do not fit: two small adapters, and the loop. Prints what the
loop measured, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bac
import policies
from tests.lerobot.plugins.pusht import PUSHER, PushT, PushTConfig

CONTROL_HZ = 2.0  # of Push-T's own 10: a chunk then lasts 4 s, which a machine that is busy with tests can keep up with
NUM_STEPS = 24  # three chunks


class Body:
    """A robot of LeRobot as the loop wants it."""

    def __init__(self, robot: Any) -> None:
        self.robot = robot

    def observe(self) -> dict[str, Any]:
        return self.robot.get_observation()

    def act(self, action: np.ndarray) -> None:
        self.robot.send_action(dict(zip(PUSHER, action.tolist(), strict=True)))


class Brain:
    """A policy with its processors as the loop wants it; the robot tells the history."""

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded

    def reset(self) -> None:
        self.loaded.policy.reset()

    def predict_action_chunk(self, observation: dict[str, Any]) -> torch.Tensor:
        state = torch.tensor([list(observation.values())])
        with torch.inference_mode():
            chunk = self.loaded.policy.predict_action_chunk(self.loaded.preprocessor({"observation.state": state}))
        return self.loaded.postprocessor(chunk)


def stand_still(last: np.ndarray | None, observation: dict[str, Any]) -> list[float]:
    """The pusher stays where it is."""
    return [observation[name] for name in PUSHER]


def main(checkpoint: str, diary: str) -> None:
    torch.set_num_threads(1)
    loaded = policies.load(checkpoint)
    bac.wrap(loaded.policy, bac.load(Path(checkpoint) / "bac.json"), replay=False)
    robot = PushT(PushTConfig(diary=Path(diary), history=2, calibration_dir=Path(diary).parent))
    robot.connect()
    loop = bac.ControlLoop(
        Brain(loaded),
        Body(robot),
        control_hz=CONTROL_HZ,
        safe_action=stand_still,
        action_range=(0.0, 512.0),
        timeout_s=30.0,
        warmup=1,
    )
    try:
        sys.stdout.write(json.dumps(asdict(loop.run(NUM_STEPS))) + "\n")
    finally:
        robot.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
