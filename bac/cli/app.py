"""The commands. Each prints to the terminal and leaves the work to a module beside this one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import bac
from bac.adapters import find_host
from bac.caching.calibration import Calibration
from bac.certificate import CERTIFICATE_NAME, Certificate
from bac.cli import checkpoint, doctor, explain, lerobot, measure, observations
from bac.cli.options import (
    BatchSize,
    Dataset,
    DatasetRoot,
    Device,
    Env,
    EnvOptions,
    Executor,
    FilePath,
    Imports,
    PolicyPath,
    Seed,
    Task,
    errors_in_one_line,
    settings_of,
)
from bac.denoising import Denoising
from bac.errors import ScheduleError
from bac.files import probe
from bac.guarding.calibration import measure as measure_errors
from bac.guarding.duty import watched_schedule
from bac.guarding.files import GUARD_NAME, RESPONSES, response_named
from bac.plan.replay import replay_named

REPORT_NAME, PICTURE_NAME = "bac.tuned.json", "bac.tuned.png"  # beside bac.json
CALIBRATION_NAME = "bac.calibration.zarr"  # likewise
_DRAWN: dict[str, Callable[[Path], object]] = {
    GUARD_NAME: bac.Guard.load,
    CERTIFICATE_NAME: Certificate.load,
    observations.NAME: observations.describe,
}

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Diffusion policies, faster: fewer steps, reuse, replay."
)


@app.command()
def show(
    path: Annotated[
        Path, typer.Argument(help="bac.json, guard.json, certificate.json, a calibration or its observations.")
    ],
) -> None:
    """Draw a bac.json or a guard, or describe a certificate, a calibration or its observations."""
    with errors_in_one_line():
        load: Callable[[Path], object] = Calibration.load if path.is_dir() else _DRAWN.get(path.name, bac.load)
        typer.echo(str(load(path)))


@app.command(name="doctor")
def examine(policy_path: PolicyPath, imports: Imports = [], device: Device = "cpu") -> None:  # noqa: B006
    """List the blocks of a policy that can be cached, or the reason why none can, and check that its bac.json fits."""
    for line in doctor.versions():
        typer.echo(line)
    with errors_in_one_line():
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        for line in doctor.examine(loaded.policy, policy_path):
            typer.echo(line)


@app.command(epilog="Example: bac bench --policy-path CKPT --rounds 40")
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
        chosen = _load(file, policy_path)
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        batch = loaded.random_observation(batch_size, seed=seed)
        for line in measure.report(loaded.policy, chosen, batch, executors=executor, rounds=rounds):
            typer.echo(line)


@app.command(name="explain", epilog="Example: bac explain --policy-path CKPT --json")
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


@app.command()
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
    _check_source(env, dataset)
    with errors_in_one_line():
        target, settings = _target(output, policy_path / "bac.json"), settings_of(env_option, task)
        probe(target.with_name(CALIBRATION_NAME), folder=True)
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        _check_updates(num_updates, find_host(loaded.policy).num_steps)
        if env is not None:
            options = {"runs": runs, "num_worlds": batch_size, "seed": seed}
            calibration, batches = measure.calibrate_in(loaded, env, settings, **options)
        else:
            batches = loaded.observations_of(str(dataset), dataset_root, runs=runs, batch_size=batch_size)
            calibration = bac.calibrate(loaded.policy, batches, seed=seed)
        calibration.save(target.with_name(CALIBRATION_NAME))
        observations.save(target.with_name(observations.NAME), batches)
        schedule = bac.adaptive_schedule(calibration, num_updates, num_bubbled=num_bubbled, force_last=force_last)
        Denoising(schedule=schedule).save(target)
    typer.echo(f"{calibration}\n{schedule}")
    all_of_it = "" if schedule.num_sweeps < schedule.num_steps else "; nothing is reused: lower --num-updates"
    typer.echo(f"{schedule.num_sweeps:.1f} of {schedule.num_steps} sweeps are computed{all_of_it}; written to {target}")
    typer.echo(f"Next: bac bench --policy-path {policy_path}")


@app.command(epilog="Then: BAC_GUARD=dense lerobot-eval --policy.path=CKPT ... (or log, denser, or on: as saved)")
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

    Under LeRobot's commands a guard goes on duty only if asked for: BAC_GUARD=log, denser, dense, or on. When the
    command ends, the guard's report is logged. A probed chunk takes as long as a dense one.

    Ctrl-C leaves files as they were. The command does not resume: it starts from the beginning.
    """
    _check_source(env, dataset)
    with errors_in_one_line():
        source, chosen = file or policy_path / "bac.json", _load(file, policy_path)
        target = _target(output, source.with_name(GUARD_NAME))
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        schedule = watched_schedule(chosen, find_host(loaded.policy))
        answer = response_named(response, schedule)
        if env is not None:
            settings = settings_of(env_option, task)
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
    typer.echo(f"Next: BAC_GUARD={response} lerobot-eval --policy.path={policy_path} ...")


@app.command(epilog="Example: bac tune --policy-path CKPT --env pusht --target-hz 25")
def tune(
    policy_path: PolicyPath,
    env: Env = None,
    task: Task = None,
    env_option: EnvOptions = [],  # noqa: B006
    dataset: Dataset = None,
    dataset_root: DatasetRoot = None,
    target_hz: Annotated[float | None, typer.Option(help="Chunks per second.")] = None,
    target_latency_s: Annotated[float | None, typer.Option(help="Largest latency of a chunk, p95 [s].")] = None,
    control_hz: Annotated[float | None, typer.Option(help="Control steps per second; with --n-action-steps.")] = None,
    n_action_steps: Annotated[int | None, typer.Option(help="Actions executed of a chunk.")] = None,
    max_action_error: Annotated[float | None, typer.Option(help="Largest action error, instead of a rate.")] = None,
    runs: Annotated[int, typer.Option(help="Observations: half to choose with, half to judge.", min=3)] = 64,
    batch_size: BatchSize = 8,
    evaluations: Annotated[int, typer.Option(help="Runs that the search may take for each family.", min=0)] = 100,
    executor: Executor = "auto",
    output: Annotated[Path | None, typer.Option(help="Default: bac.json in the policy's folder.")] = None,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Find the way to denoise that meets a rate, a latency or an action error on this machine, and write it.

    Solver, timesteps, coefficients, update steps and estimator are chosen together, by running them. The choice is
    timed, and verified on held-out observations. LeRobot's commands follow it as bac.json. The report of all trials
    lies beside it as bac.tuned.json, with a picture of error against latency, bac.tuned.png.

    A flow-matching policy (pi0, SmolVLA, ...) needs no budget: it gets three fitted steps. After bac calibrate the
    command needs neither --env nor --dataset.

    Ctrl-C leaves files as they were. The command does not resume: it starts from the beginning.
    """
    kept = policy_path / observations.NAME
    if env is not None or dataset is not None or not kept.is_file():
        _check_source(env, dataset, "; or type bac calibrate first, which keeps its observations for this command")
    with errors_in_one_line():
        target = _target(output, policy_path / "bac.json")
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        if env is not None:
            settings = settings_of(env_option, task)
            batches = measure.observations_in(loaded, env, settings, runs=runs, num_worlds=batch_size, seed=seed)
        elif dataset is None:
            batches = observations.load(kept, device=device)
            typer.echo(f"observations: those of bac calibrate, {kept}")
        else:
            batches = loaded.observations_of(str(dataset), dataset_root, runs=runs, batch_size=batch_size)
        tuned = bac.tune(
            loaded.policy, batches, target_latency_s=target_latency_s, target_hz=target_hz, control_hz=control_hz,
            n_action_steps=n_action_steps, max_action_error=max_action_error, evaluations=evaluations,
            replay=replay_named(executor), seed=seed,
        )  # fmt: skip
        tuned.denoising.save(target)
        tuned.save(target.with_name(REPORT_NAME))
        picture = measure.pictured(tuned, target.with_name(PICTURE_NAME))
    typer.echo(f"{tuned}\n\n{tuned.denoising}\n{picture}\nwritten to {target}")
    typer.echo(f"Next: lerobot-eval --policy.path={policy_path} ... follows it; bac show {target} draws it")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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


def _check_source(env: str | None, dataset: str | None, otherwise: str = "") -> None:
    if (env is None) == (dataset is None):
        raise typer.BadParameter(f"give either --env or --dataset, where the observations come from{otherwise}")


def _target(output: Path | None, default: Path) -> Path:
    """Where a command writes; tried before minutes of work.

    Raises:
        FileError: It cannot be written.
    """
    target = output or default
    probe(target)
    return target


def _check_updates(num_updates: int, num_steps: int | None) -> None:
    """Asked before minutes of work; the default suits a policy of many steps.

    Raises:
        ScheduleError: A block cannot update more often than the policy makes steps.
    """
    if num_steps is not None and num_updates > num_steps:  # None: only a run tells
        raise ScheduleError(
            f"--num-updates: the policy makes {num_steps} denoising steps, so a block can update {num_steps} times at "
            f"most, got {num_updates}; type --num-updates {max(1, num_steps // 2)}, for example"
        )


def _load(file: Path | None, policy_path: Path) -> Denoising:
    """Load the bac.json that a command follows."""
    path = file or policy_path / "bac.json"
    if not path.is_file():
        raise bac.BacError(
            f"{path}: there is no such file; make one first: bac tune, or bac calibrate, --policy-path {policy_path}"
        )
    return bac.load(path)
