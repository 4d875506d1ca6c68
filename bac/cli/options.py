"""Checks options of the commands before anything is loaded or played."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from bac.errors import ScheduleError


def check_source(env: str | None, dataset: str | None, otherwise: str = "") -> None:
    """Refuse both sources of observations together, and none.

    Args:
        otherwise: What else can be typed, for the error.
    """
    if (env is None) == (dataset is None):
        raise typer.BadParameter(f"give either --env or --dataset, where the observations come from{otherwise}")


def check_updates(num_updates: int, num_steps: int | None) -> None:
    """Asked before minutes of work; the default suits a policy of many steps.

    Raises:
        ScheduleError: A block cannot update more often than the policy makes steps.
    """
    if num_steps is not None and num_updates > num_steps:  # None: only a run tells
        raise ScheduleError(
            f"--num-updates: the policy makes {num_steps} denoising steps, so a block can update {num_steps} times at "
            f"most, got {num_updates}; type --num-updates {max(1, num_steps // 2)}, for example"
        )


def settings(given: Sequence[str], task: str | None) -> dict[str, Any]:
    """The settings of an environment: ``["size=50", "obs_type=pixels"]`` is ``{"size": 50, "obs_type": "pixels"}``."""
    found: dict[str, Any] = {} if task is None else {"task": task}
    for option in given:
        name, equals, value = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"--env-option: takes NAME=VALUE, got {option}")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found
