"""What the simulated robots share: they are calibrated from the start, and keep a diary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.robots import Robot, RobotConfig


@dataclass(kw_only=True)
class DiaristConfig(RobotConfig):
    """`diary` is the file that what happens to the robot is appended to."""

    diary: Path


class Diarist(Robot):
    """Appends to its diary the words "connect" and "disconnect", and whatever else is noted, as JSON, line by line."""

    def __init__(self, config: DiaristConfig) -> None:
        super().__init__(config)
        self.config = config
        self.connected = False

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
        self.note("connect")

    def disconnect(self) -> None:
        self.connected = False
        self.note("disconnect")

    def note(self, event: Any) -> None:
        with self.config.diary.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
