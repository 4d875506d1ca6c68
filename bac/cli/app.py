"""The commands. Each prints to the terminal and leaves the work to a module beside this one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import bac
from bac.adapters import find_host
from bac.cli import (
    checkpoint,
    comparing,
    doctor,
    drawing,
    explain,
    exporting,
    following,
    hints,
    lerobot,
    measure,
    observations,
    options,
    tuning,
)
from bac.cli.arguments import (
    BatchSize,
    Dataset,
    DatasetRoot,
    Device,
    Env,
    EnvOptions,
    FilePath,
    Imports,
    PolicyPath,
    Seed,
    Task,
)  # fmt: skip
from bac.cli.terminal import errors_in_one_line
from bac.denoising import Denoising
from bac.files import probe
from bac.guarding.calibration import measure as measure_errors
from bac.guarding.duty import watched_schedule
from bac.guarding.files import GUARD_NAME, RESPONSES, response_named

_SHIPPED = "policies/checkpoints/pusht"  # for examples
_PLAYS = f"{_SHIPPED} --env pusht --env-option obs_type=environment_state_agent_pos"
CALIBRATION_NAME = "bac.calibration.zarr"  # beside bac.json

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Diffusion policies, faster: fewer steps, reuse, replay."
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bac {bac.__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say it, and exit.")]


@app.callback()
def _before_any_command(version: Version = False) -> None:
    pass  # its options stand before a command's name


app.command(name="export", epilog=exporting.EPILOG)(exporting.export)
app.command(name="tune", epilog=tuning.EPILOG)(tuning.tune)
app.command(name="compare", epilog=comparing.EPILOG)(comparing.compare)


@app.command(epilog=f"Example: bac show {_SHIPPED}/fitted_4.json")
def show(
    path: Annotated[
        Path,
        typer.Argument(
            help="bac.json, its report, bac.compared.json, guard.json, certificate.json, card.json, a calibration or "
            "observations."
        ),
    ],
) -> None:
    """Draw a bac.json or a guard, print a comparison, or describe a report, a certificate or a calibration."""
    with errors_in_one_line():
        typer.echo(drawing.drawn(path))


@app.command(name="doctor", epilog=f"Example: bac doctor --policy-path {_SHIPPED}")
def examine(policy_path: PolicyPath, imports: Imports = [], device: Device = "cpu") -> None:  # noqa: B006
    """List the blocks of a policy that can be cached, or the reason why none can, and check that its bac.json fits."""
    for line in doctor.versions():
        typer.echo(line)
    with errors_in_one_line():
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        for line in doctor.examine(loaded.policy, policy_path, imports):
            typer.echo(line)


@app.command(epilog=f"Example: bac bench --policy-path {_SHIPPED} --file {_SHIPPED}/fitted_4.json")
def bench(
    policy_path: PolicyPath,
    file: FilePath = None,
    rounds: Annotated[int, typer.Option(help="Chunks to time of each kind, in turns.", min=2)] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    executor: Annotated[list[str], typer.Option(help="interpret or replay; repeatable.")] = ["interpret", "replay"],  # noqa: B006
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Time action chunks of random observations, in turns: of the policy as it is, and under its bac.json.

    Then compare their jerk, inside chunks and where a robot switches to another chunk of the same observation.
    """
    with errors_in_one_line():
        chosen = _load(file, policy_path, imports)
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        batch = loaded.random_observation(batch_size, seed=seed)
        for line in measure.report(loaded.policy, chosen, batch, executors=executor, rounds=rounds):
            typer.echo(line)


@app.command(name="explain", epilog=f"Example: bac explain --policy-path {_SHIPPED} --json")
def tell_stages(
    policy_path: PolicyPath,
    rounds: Annotated[int, typer.Option(help="Chunks to time of each kind.", min=1)] = 5,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables; times in seconds.")] = False,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Tell where the milliseconds of a chunk go, and what replay, fewer steps and reuse would give on this machine.

    The policy is timed as it is, whatever its bac.json says, on random observations.
    """
    with errors_in_one_line():
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        explained = explain.explain(loaded, batch_size=batch_size, rounds=rounds, seed=seed)
        typer.echo(json.dumps(explained.to_dict(), indent=2) if as_json else str(explained))


@app.command(epilog=f"Example: bac calibrate --policy-path {_PLAYS}")
def calibrate(
    policy_path: PolicyPath,
    env: Env = None,
    task: Task = None,
    env_option: EnvOptions = [],  # noqa: B006
    dataset: Dataset = None,
    dataset_root: DatasetRoot = None,
    runs: Annotated[int, typer.Option(help="Observations to measure.", min=2)] = 32,
    batch_size: BatchSize = 4,
    num_updates: Annotated[int, typer.Option(help="Updates per block before bubbling; the paper's S.", min=1)] = 10,
    num_bubbled: Annotated[int, typer.Option(help="Fragile blocks that bubble; the paper's n.", min=0)] = 5,
    force_last: Annotated[int, typer.Option(help="Last steps at which every block updates.", min=0)] = 0,
    output: Annotated[Path | None, typer.Option(help="Default: bac.json in the policy's folder.")] = None,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Measure a policy in an environment or on a data set; write schedule, calibration, observations for bac tune.

    Ctrl-C leaves files as they were. The command does not resume: it starts from the beginning.
    """
    options.check_source(env, dataset)
    with errors_in_one_line():
        target, settings = _target(output, policy_path / "bac.json"), options.settings(env_option, task)
        probe(target.with_name(CALIBRATION_NAME), folder=True)
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        options.check_updates(num_updates, find_host(loaded.policy).num_steps)
        if env is not None:
            typer.echo(measure.PLAYED.format(runs=runs, worlds=batch_size, env=env))
            batches = measure.observations_in(loaded, env, settings, runs=runs, num_worlds=batch_size, seed=seed)
        else:
            batches = loaded.observations_of(str(dataset), dataset_root, runs=runs, batch_size=batch_size)
        calibration = bac.calibrate(loaded.policy, batches, seed=seed)
        calibration.save(target.with_name(CALIBRATION_NAME))
        observations.save(target.with_name(observations.NAME), batches)
        schedule = bac.adaptive_schedule(calibration, num_updates, num_bubbled=num_bubbled, force_last=force_last)
        certificate = following.write(Denoising(schedule=schedule), target)
    typer.echo("\n".join(filter(None, (str(calibration), str(schedule), certificate))))
    all_of_it = "" if schedule.num_sweeps < schedule.num_steps else "; nothing is reused: lower --num-updates"
    typer.echo(f"{schedule.num_sweeps:.1f} of {schedule.num_steps} sweeps are computed{all_of_it}; written to {target}")
    typer.echo(f"Next: bac bench {hints.same_policy(policy_path, imports)}")


@app.command(epilog=f"Example: bac guard --policy-path {_PLAYS}")
def guard(
    policy_path: PolicyPath,
    env: Env = None,
    task: Task = None,
    env_option: EnvOptions = [],  # noqa: B006
    dataset: Dataset = None,
    dataset_root: DatasetRoot = None,
    file: FilePath = None,
    runs: Annotated[int, typer.Option(help="Observations to measure; 1,000 make it sharper.", min=2)] = 128,
    every: Annotated[int, typer.Option(help="One chunk of an episode in this many is measured.", min=1)] = 8,
    batch_size: BatchSize = 4,
    num_watched: Annotated[int, typer.Option(help="Reused blocks at steps to watch, chosen at random.", min=1)] = 256,
    quantile: Annotated[float, typer.Option(help="Quantile of the errors that is the limit.", min=0.5, max=1)] = 0.99,
    response: Annotated[str, typer.Option(help=f"Response to an alarm: {', '.join(RESPONSES)}.")] = "log",
    probe_every: Annotated[int, typer.Option(help="Mean number of chunks from probe to probe.", min=1)] = 150,
    num_cells: Annotated[int, typer.Option(help="Blocks at steps compared in a probed chunk.", min=1)] = 16,
    patience: Annotated[int, typer.Option(help="Least mean number of probes to a false alarm.", min=1)] = 1000,
    cooldown: Annotated[int | None, typer.Option(help="Chunks a response lasts; default: the episode.")] = None,
    output: Annotated[Path | None, typer.Option(help="Default: guard.json beside the schedule.")] = None,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Seeds worlds and noise; take others than for the schedule.")] = 10_000,
) -> None:
    """Make a drift guard: it notices, while a robot runs, that the schedule no longer fits the observations.

    The command lets the policy follow its schedule, computes reused blocks as well, and stores their usual errors. On
    duty, the guard probes some chunks the same way. If too many errors are larger than usual, it raises an alarm and
    responds: "log" only logs it, "denser" adds an update in the middle of every stretch of reuse, "dense" computes
    every block. The response lasts until the episode ends.

    Under LeRobot's commands a guard goes on duty only if asked for, as in BAC_GUARD=dense lerobot-eval ...: log,
    denser, dense, or on. When the command ends, the guard's report is logged. A probed chunk takes as long as a dense
    one. The command needs a bac.json that reuses blocks: bac calibrate writes one.

    Ctrl-C leaves files as they were. The command does not resume: it starts from the beginning.
    """
    options.check_source(env, dataset)
    with errors_in_one_line():
        source, chosen = file or policy_path / "bac.json", _load(file, policy_path, imports)
        target = _target(output, source.with_name(GUARD_NAME))
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        schedule = watched_schedule(chosen, find_host(loaded.policy))
        answer = response_named(response, schedule)
        if env is not None:
            settings = options.settings(env_option, task)
            measured = measure.survey_in(
                loaded, chosen, env, settings, runs=runs, num_worlds=batch_size, every=every, num_watched=num_watched,
                seed=seed,
            )  # fmt: skip
        else:
            batches = loaded.observations_of(str(dataset), dataset_root, runs=runs, batch_size=batch_size)
            measured = measure_errors(loaded.policy, chosen, batches, num_watched=num_watched, seed=seed)
        made = measured.guard(
            schedule, quantile=quantile, response=answer, probe_every=probe_every,
            num_cells=num_cells, patience=patience, cooldown=cooldown,
        )  # fmt: skip
        made.save(target)
    typer.echo(f"{made}\nwritten to {target}")
    typer.echo(f"Next: BAC_GUARD={response} {hints.evaluate(policy_path, imports, env, env_option, task)}")


@app.command(
    epilog="Example: bac serve --host=127.0.0.1 --port=8080",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def serve(
    context: typer.Context,
    trust_network: Annotated[
        bool, typer.Option("--trust-network", help="Serve other machines: whoever reaches the port can run code here.")
    ] = False,
) -> None:
    """Start LeRobot's asynchronous policy server with plug-ins, which it does not load by itself. Takes its options.

    LeRobot's protocol asks for no password and unpickles what arrives, which can run any code. By default the server
    therefore listens on this machine alone. Another --host needs --trust-network: only on a network where every machine
    is yours, or through a tunnel: ssh -L 8080:localhost:8080 SERVER.
    """
    with errors_in_one_line():
        lerobot.require_trust(context.args, trust_network)
        sys.argv = ["bac serve", *context.args]
        lerobot.named("register_third_party_plugins")()
        lerobot.named("serve")()


def _target(output: Path | None, default: Path) -> Path:
    """Where a command writes; tried before minutes of work.

    Raises:
        FileError: It cannot be written, or would replace what is no file of `bac`.
    """
    target = output or default
    following.check_target(target, default.name)
    return target


def _load(file: Path | None, policy_path: Path, imports: Sequence[str]) -> Denoising:
    """Load the bac.json that a command follows."""
    path = file or policy_path / "bac.json"
    if not path.is_file():
        raise bac.BacError(
            f"{path}: there is no such file; make one first: bac tune, or bac calibrate, "
            f"{hints.same_policy(policy_path, imports)} --env ENV"
        )
    return bac.load(path)
