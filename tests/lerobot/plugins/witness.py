"""A plug-in of LeRobot that appends every action Push-T is given to the file that the variable ``WITNESS`` names."""

from __future__ import annotations

import json
import os
from typing import Any

from gym_pusht.envs.pusht import PushTEnv

_step = PushTEnv.step


def step(self: PushTEnv, action: Any) -> Any:
    with open(os.environ["WITNESS"], "a", encoding="utf-8") as file:
        file.write(json.dumps([float(value) for value in action]) + "\n")
    return _step(self, action)


PushTEnv.step = step
