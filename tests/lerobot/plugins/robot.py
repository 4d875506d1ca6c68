"""A plug-in of LeRobot: a simulated robot with joints, two of them driven, and a camera that sees noise.

It goes where it is told at once, and appends to a file what it is told: ``[x, y]`` per action, and the words "connect"
and "disconnect".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lerobot.robots import RobotConfig

from tests.lerobot.plugins.diarist import Diarist, DiaristConfig

DRIVEN, CAMERA = ("x.pos", "y.pos"), "top"


@RobotConfig.register_subclass("simulated")
@dataclass(kw_only=True)
class SimulatedConfig(DiaristConfig):
    """`joints` are those that it reports: by default one besides the two that are driven."""

    joints: list[str] = field(default_factory=lambda: [*DRIVEN, "z.pos"])


class Simulated(Diarist):
    config_class = SimulatedConfig
    name = "simulated"

    def __init__(self, config: SimulatedConfig) -> None:
        super().__init__(config)
        self.joints = dict.fromkeys(config.joints, 0.0)
        self.pictures = np.random.default_rng(0)

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(self.config.joints, float), CAMERA: (28, 28, 3)}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(DRIVEN, float)

    def get_observation(self) -> dict[str, Any]:
        return {**self.joints, CAMERA: self.pictures.integers(0, 256, (28, 28, 3), dtype=np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.joints.update(action)
        self.note([action[name] for name in DRIVEN])
        return action
