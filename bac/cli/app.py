"""The commands. Each prints to the terminal and leaves the work to a module beside this one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import bac
from bac.cli import checkpoint, doctor, lerobot, measure

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Block-wise adaptive caching of diffusion policies.")

PolicyPath = Annotated[Path, typer.Option("--policy-path", help="Folder of a LeRobot checkpoint.")]
Imports = Annotated[list[str], typer.Option("--import", help="Module that registers the policy's type; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(help="Seeds observations, worlds and noise.")]


@app.command()
def show(path: Annotated[Path, typer.Argument(help="bac.json, or the folder of a calibration.")]) -> None:
    """Draw a schedule, or describe a calibration."""
    with _errors_in_one_line():
        typer.echo(str(bac.Calibration.load(path) if path.is_dir() else bac.Schedule.load(path)))


@app.command(name="doctor")
def examine(policy_path: PolicyPath, imports: Imports = [], device: Device = "cpu") -> None:  # noqa: B006
    """Say what would be cached in a policy, block by block, or why not; and whether its bac.json fits."""
    for line in doctor.versions():
        typer.echo(line)
    with _errors_in_one_line():
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        for line in doctor.examine(loaded.policy, policy_path):
            typer.echo(line)


@app.command()
def bench(
    policy_path: PolicyPath,
    schedule: Annotated[Path | None, typer.Option(help="Default: bac.json in the policy's folder.")] = None,
    rounds: Annotated[int, typer.Option(help="Chunks timed of each kind, by turns.", min=2)] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    executor: Annotated[list[str], typer.Option(help="interpret or replay; repeatable.")] = ["interpret"],  # noqa: B006
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Time action chunks of random observations, dense and cached by turns."""
    with _errors_in_one_line():
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        chosen = bac.Schedule.load(schedule or policy_path / "bac.json")
        batch = loaded.random_observation(batch_size, seed=seed)
        for line in measure.report(loaded.policy, chosen, batch, executors=executor, rounds=rounds):
            typer.echo(line)


@app.command()
def calibrate(
    policy_path: PolicyPath,
    env: Annotated[str | None, typer.Option(help="LeRobot's type of environment to run the policy in.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of the environment.")] = None,
    env_option: Annotated[list[str], typer.Option(help="Setting of the environment, NAME=VALUE; repeatable.")] = [],  # noqa: B006
    dataset: Annotated[str | None, typer.Option(help="LeRobot data set to take observations from.")] = None,
    dataset_root: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    runs: Annotated[int, typer.Option(help="Observations to measure.", min=2)] = 32,
    batch_size: Annotated[int, typer.Option(help="Worlds, or observations, side by side.", min=1)] = 4,
    num_updates: Annotated[int, typer.Option(help="Updates per block before bubbling; the paper's S.", min=1)] = 10,
    num_bubbled: Annotated[int, typer.Option(help="Fragile blocks that bubble; the paper's n.", min=0)] = 5,
    force_last: Annotated[int, typer.Option(help="Last steps at which every block updates.", min=0)] = 0,
    output: Annotated[Path | None, typer.Option(help="Default: bac.json in the policy's folder.")] = None,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Watch a policy in an environment or on a data set, and write its schedule and what it was made from."""
    if (env is None) == (dataset is None):
        raise typer.BadParameter("give either --env or --dataset, where the observations come from")
    with _errors_in_one_line():
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        if env is not None:
            settings = {**({} if task is None else {"task": task}), **_settings(env_option)}
            calibration = measure.calibrate_in(loaded, env, settings, runs=runs, num_worlds=batch_size, seed=seed)
        else:
            batches = loaded.observations_of(str(dataset), dataset_root, runs=runs, batch_size=batch_size)
            calibration = bac.calibrate(loaded.policy, batches, seed=seed)
        target = output or policy_path / "bac.json"
        calibration.save(target.with_name("bac.calibration.zarr"))
        schedule = bac.adaptive_schedule(calibration, num_updates, num_bubbled=num_bubbled, force_last=force_last)
        schedule.save(target)
    typer.echo(f"{calibration}\n{schedule}")
    typer.echo(f"{schedule.num_sweeps:.1f} of {schedule.num_steps} sweeps are computed; written to {target}")
    typer.echo(f"Next: bac bench --policy-path {policy_path}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(context: typer.Context) -> None:
    """Start LeRobot's asynchronous policy server with plug-ins, which it does not load itself. Takes its options."""
    sys.argv = ["bac serve", *context.args]
    lerobot.part("utils.import_utils").register_third_party_plugins()
    lerobot.part("async_inference.policy_server").serve()


def _settings(options: Sequence[str]) -> dict[str, Any]:
    """``["episode_length=50", "obs_type=pixels"]`` to ``{"episode_length": 50, "obs_type": "pixels"}``."""
    settings: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"--env-option: takes NAME=VALUE, got {option}")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except bac.BacError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
