"""`bac tune`: find a way to denoise that meets a budget, let episodes decide if asked, and write it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

import bac
from bac.cli import checkpoint, episodes, following, hints, measure, observations, options
from bac.cli.arguments import (
    BatchSize,
    Dataset,
    DatasetRoot,
    Device,
    Env,
    EnvOptions,
    Executor,
    Imports,
    PolicyPath,
    Seed,
    Task,
)  # fmt: skip
from bac.cli.drawing import PICTURE_NAME, REPORT_NAME
from bac.cli.terminal import errors_in_one_line
from bac.plan.replay import replay_named
from bac.tuning import Tuned
from bac.tuning.call import budget_for
from bac.tuning.closed_loop import Decision, decide
from bac.tuning.reference import ReferenceName

EPILOG = (
    "Example: bac tune --policy-path policies/checkpoints/pusht --env pusht "
    "--env-option obs_type=environment_state_agent_pos --target-hz 25"
)


def tune(
    policy_path: PolicyPath,
    env: Env = None,
    task: Task = None,
    env_option: EnvOptions = [],  # noqa: B006
    dataset: Dataset = None,
    dataset_root: DatasetRoot = None,
    target_hz: Annotated[float | None, typer.Option(help="Chunks per second.")] = None,
    target_latency_s: Annotated[
        float | None, typer.Option(help="Largest latency of a chunk in seconds, at the 95th percentile.")
    ] = None,
    control_hz: Annotated[float | None, typer.Option(help="Control steps per second; with --n-action-steps.")] = None,
    n_action_steps: Annotated[int | None, typer.Option(help="Actions executed of a chunk.")] = None,
    max_action_error: Annotated[float | None, typer.Option(help="Largest action error, instead of a rate.")] = None,
    runs: Annotated[int, typer.Option(help="Observations: half to choose with, half to judge.", min=3)] = 64,
    batch_size: BatchSize = 8,
    evaluations: Annotated[int, typer.Option(help="Runs that the search may take for each family.", min=0)] = 100,
    executor: Executor = "auto",
    reference: Annotated[
        ReferenceName, typer.Option(help="Of a flow: own (its own steps) or flow (a fine run of it).")
    ] = "own",
    precision: Annotated[
        list[str], typer.Option(help="With --max-action-error: try the choice in tf32 or bf16 too. May be repeated.")
    ] = [],  # noqa: B006
    num_episodes: Annotated[
        int | None, typer.Option("--episodes", help="Let so many paired episodes, at most, decide; with --env.", min=1)
    ] = None,
    margin: Annotated[float, typer.Option(help="Largest loss that the episodes tolerate, in (0, 1).")] = 0.05,
    quantity: Annotated[
        str, typer.Option(help=f"What the episodes count: {', '.join(episodes.QUANTITIES)}.")
    ] = "success",
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

    With --episodes, the choice and the faster ways on its front play the same episodes as the policy itself, until it
    is shown or refuted that they lose less than --margin. The fastest that is shown wins, and certificate.json says so.

    Ctrl-C leaves files as they were. The command does not resume: it starts from the beginning.
    """
    kept = policy_path / observations.NAME
    _check(env, dataset, kept, num_episodes, margin)
    with errors_in_one_line():
        replay = replay_named(executor)
        episodes.check_quantity(quantity)
        target = output or policy_path / "bac.json"
        following.check_target(target, "bac.json")
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        budget_for(
            loaded.policy, target_latency_s=target_latency_s, target_hz=target_hz, control_hz=control_hz,
            n_action_steps=n_action_steps, max_action_error=max_action_error,
        )  # fmt: skip  # said before observations are played
        settings = options.settings(env_option, task)
        batches = _batches(loaded, env, settings, dataset, dataset_root, kept, runs=runs, size=batch_size, seed=seed)
        world = nullcontext() if num_episodes is None else episodes.playing(
            loaded, str(env), settings, num_worlds=batch_size, quantity=quantity, replay=replay,
            num_episodes=num_episodes,
        )  # fmt: skip
        with world as play:  # before the search, so that what is wrong with it is said now
            tuned = bac.tune(
                loaded.policy, batches, target_latency_s=target_latency_s, target_hz=target_hz, control_hz=control_hz,
                n_action_steps=n_action_steps, max_action_error=max_action_error, evaluations=evaluations,
                replay=replay, reference=reference, precisions=precision, seed=seed,
            )  # fmt: skip
            decision = None if play is None else decide(
                tuned, play, num_episodes=num_episodes or 1, margin=margin, quantity=quantity,
                first_seed=episodes.FIRST_SEED, at_once=batch_size, turn=play.turn,
            )  # fmt: skip
        tuned = tuned if decision is None else decision.tuned
        _write(tuned, target)
        if decision is not None:
            certificate = _certified(decision, target, policy_path, str(task or env), device)
            typer.echo(f"{decision}\ncertificate: {certificate}\n")
        picture = measure.pictured(tuned, target.with_name(PICTURE_NAME))
    typer.echo(f"{tuned.denoising}\n{picture}\nwritten to {target}")
    played = hints.evaluate(policy_path, imports, env, env_option, task)
    typer.echo(f"Next: bac bench {hints.same_policy(policy_path, imports)}; {played}")


def _check(env: str | None, dataset: str | None, kept: Path, num_episodes: int | None, margin: float) -> None:
    if env is not None or dataset is not None or not kept.is_file():
        options.check_source(env, dataset, "; or type bac calibrate first, which keeps observations for this")
    if num_episodes is not None and env is None:
        raise typer.BadParameter("--episodes: are played in an environment; name it with --env")
    if not 0 < margin < 1:
        raise typer.BadParameter(f"--margin: must be in (0, 1), got {margin:g}")


def _write(tuned: Tuned, target: Path) -> None:
    certificate = following.write(tuned.denoising, target)
    tuned.save(target.with_name(REPORT_NAME))
    typer.echo(f"{tuned}\n" + (f"{certificate}\n" if certificate else ""))


def _batches(
    loaded: checkpoint.Checkpoint,
    env: str | None,
    settings: dict[str, Any],
    dataset: str | None,
    root: Path | None,
    kept: Path,
    *,
    runs: int,
    size: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Observations from an environment, from those that `bac calibrate` kept, or from a data set."""
    if env is not None:
        typer.echo(measure.PLAYED.format(runs=runs, worlds=size, env=env))
        return measure.observations_in(loaded, env, settings, runs=runs, num_worlds=size, seed=seed)
    if dataset is None:
        typer.echo(f"observations: those of bac calibrate, {kept}")
        return observations.load(kept, device=str(next(loaded.policy.parameters()).device))
    return loaded.observations_of(dataset, root, runs=runs, batch_size=size)


def _certified(decision: Decision, target: Path, weights: Path, task: str, device: str) -> Path:
    command = " ".join(["bac", *sys.argv[1:]])
    made = episodes.certificate_of(decision, target, weights, task=task, command=command, device=device)
    return episodes.save_certificate(made, target)
