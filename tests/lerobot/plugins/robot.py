"""A plug-in of LeRobot: a simulated robot with three joints, two of them driven, and a camera that sees noise.

It goes where it is told at once, and appends to a file what it is told: ``[x, y]`` per action, and the words "connect"
and "disconnect".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

JOINTS, DRIVEN, CAMERA = ("x.pos", "y.pos", "z.pos"), ("x.pos", "y.pos"), "top"


@RobotConfig.register_subclass("simulated")
@dataclass(kw_only=True)
class SimulatedConfig(RobotConfig):
    """`diary` is the file that what happens to the robot is appended to."""

    diary: Path


class Simulated(Robot):
    config_class = SimulatedConfig
    name = "simulated"

    def __init__(self, config: SimulatedConfig) -> None:
        super().__init__(config)
        self.diary = config.diary
        self.joints = dict.fromkeys(JOINTS, 0.0)
        self.pictures = np.random.default_rng(0)
        self.connected = False

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(JOINTS, float), CAMERA: (28, 28, 3)}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(DRIVEN, float)

    @property
    def is_connected(self) -> bool:
        return self.connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def connect(self, calibrate: bool = True) -> None:
        self.connected = True
        self._note("connect")

    def disconnect(self) -> None:
        self.connected = False
        self._note("disconnect")

    def get_observation(self) -> dict[str, Any]:
        return {**self.joints, CAMERA: self.pictures.integers(0, 256, (28, 28, 3), dtype=np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.joints.update(action)
        self._note([action[name] for name in DRIVEN])
        return action

    def _note(self, event: Any) -> None:
        with self.diary.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
