"""The lines to type next, with what the user had to type this time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def same_policy(path: Path, imports: Sequence[str]) -> str:
    """Options that name the policy for another `bac` command."""
    return " ".join(["--policy-path", shlex.quote(str(path)), *(f"--import {name}" for name in imports)])


def evaluate(path: Path, imports: Sequence[str], env: str | None, given: Sequence[str], task: str | None) -> str:
    """The command that plays episodes with the policy. LeRobot takes an import as an option of its own.

    Args:
        path: The policy's folder.
        imports: Modules that register its type.
        env: LeRobot's name of the environment that was used; None leaves ENV to be filled in.
        given: Its settings, NAME=VALUE each.
        task: Its task, if one was named.
    """
    words = [f"--own{index}.discover_packages_path={name}" for index, name in enumerate(imports, 1)]
    words.append(f"--env.type={env or 'ENV'}")
    words += [f"--env.{setting}" for setting in ([] if task is None else [f"task={task}"]) + list(given)]
    words += ["--eval.n_episodes=10", "--eval.batch_size=1"]
    return " ".join(["lerobot-eval", f"--policy.path={shlex.quote(str(path))}", *map(shlex.quote, words)])
