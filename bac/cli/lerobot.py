"""Imports LeRobot when a command needs it."""

from __future__ import annotations

import importlib
from typing import Any

from bac.errors import BacError


def part(name: str) -> Any:
    """Import a module of LeRobot.

    Raises:
        BacError: The module, or a package that it needs, is not installed.
    """
    try:
        return importlib.import_module(f"lerobot.{name}")
    except ModuleNotFoundError as error:
        raise BacError(
            f"{error.name}: not installed; this command works on LeRobot's checkpoints: "
            "pip install 'lerobot_policy_bac[lerobot]' and the extras of LeRobot that the policy needs"
        ) from error
