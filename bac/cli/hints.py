"""The lines to type next, with what the user had to type this time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def same_policy(path: Path, imports: Sequence[str]) -> str:
    """Options that name the policy for another `bac` command."""
    return " ".join(["--policy-path", shlex.quote(str(path)), *(f"--import {name}" for name in imports)])


def evaluate(path: Path, imports: Sequence[str]) -> str:
    """The command that plays episodes with the policy. LeRobot takes an import as an option of its own."""
    places = (f" --own{index}.discover_packages_path={name}" for index, name in enumerate(imports, 1))
    return f"lerobot-eval --policy.path={shlex.quote(str(path))}{''.join(places)} --env.type=ENV"
