"""Options that several commands share, and how a command ends on an error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import bac
from bac.plan.replay import EXECUTORS

_INTERRUPTED = 130  # exit status of a shell's command after Ctrl-C

PolicyPath = Annotated[Path, typer.Option("--policy-path", help="Folder of a LeRobot checkpoint.")]
Imports = Annotated[list[str], typer.Option("--import", help="Module that registers the policy's type; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(help="Seeds observations, worlds and noise.")]
Env = Annotated[str | None, typer.Option(help="LeRobot's type of environment to run the policy in.")]
Task = Annotated[str | None, typer.Option(help="Task of the environment.")]
EnvOptions = Annotated[list[str], typer.Option(help="Setting of the environment, NAME=VALUE; repeatable.")]
Dataset = Annotated[str | None, typer.Option(help="LeRobot data set to take observations from.")]
DatasetRoot = Annotated[Path | None, typer.Option(help="Folder of the data set.")]
BatchSize = Annotated[int, typer.Option(help="Worlds, or observations, side by side.", min=1)]
FilePath = Annotated[
    Path | None, typer.Option("--file", "--schedule", help="Default: bac.json in the policy's folder.")
]
Executor = Annotated[str, typer.Option(help=f"How the policy will be run: {', '.join(EXECUTORS)}.")]


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Within the context, an error of `bac` is one line and exit status 1; Ctrl-C is one line, too."""
    try:
        yield
    except bac.BacError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo(
            "Stopped: files are as they were, or whole. Type the command again to start from the beginning.", err=True
        )
        raise typer.Exit(_INTERRUPTED) from error


def settings_of(options: Sequence[str], task: str | None) -> dict[str, Any]:
    """Parse ``["episode_length=50", "obs_type=pixels"]`` to ``{"episode_length": 50, "obs_type": "pixels"}``."""
    settings: dict[str, Any] = {} if task is None else {"task": task}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"--env-option: takes NAME=VALUE, got {option}")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings
