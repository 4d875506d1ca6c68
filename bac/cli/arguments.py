"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bac.plan.replay import EXECUTORS

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
