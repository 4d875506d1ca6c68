"""`bac compare`: success against chunks per second, of the policy, its files, and fewer of its own steps."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bac.adapters import find_host
from bac.certificate import file_hash
from bac.cli import checkpoint, episodes, observations, options
from bac.cli.arguments import BatchSize, Device, EnvOptions, Executor, Imports, PolicyPath, Seed, Task
from bac.cli.drawing import COMPARISON_NAME
from bac.cli.episode_log import EpisodeLog
from bac.cli.terminal import errors_in_one_line
from bac.denoising import Denoising, load
from bac.errors import BacError
from bac.files import probe
from bac.plan.replay import Replay, replay_named
from bac.tuning.bench import Quantiles, calling, quantiles
from bac.tuning.comparison import ITSELF, Comparison, Contender, play_all
from bac.tuning.rivals import USUAL, as_many, rivals
from bac.tuning.timing import in_turns
from bac.version import __version__

EPILOG = (
    "Example: bac compare --policy-path policies/checkpoints/pusht --env pusht --env-option "
    "obs_type=environment_state_agent_pos --quantity score --file policies/checkpoints/pusht/fitted_4.json"
)
_BY_PYTORCH, _TURNS = "by PyTorch", 4  # turns of timing: load that drifts meets every way


def compare(
    policy_path: PolicyPath,
    env: Annotated[str, typer.Option(help="LeRobot's type of environment to play in.")],
    task: Task = None,
    env_option: EnvOptions = [],  # noqa: B006
    file: Annotated[
        list[Path], typer.Option(help="A bac.json to play; repeatable. Default: that in the policy's folder, if any.")
    ] = [],  # noqa: B006
    steps: Annotated[
        list[int],
        typer.Option(help="Fewer own steps to play; repeatable. Default: as many as the files' ways cost, 5, 3 and 2."),
    ] = [],  # noqa: B006
    no_rivals: Annotated[bool, typer.Option("--no-rivals", help="Play the files alone, no fewer own steps.")] = False,
    num_episodes: Annotated[int, typer.Option("--episodes", help="Episodes of every way.", min=2)] = 50,
    quantity: Annotated[
        str, typer.Option(help=f"What is compared: {', '.join(episodes.QUANTITIES)} (the largest reward, in [0, 1]).")
    ] = "success",
    margin: Annotated[float, typer.Option(help="Largest loss that the last sentence tolerates, in (0, 1).")] = 0.05,
    batch_size: BatchSize = 8,
    rounds: Annotated[int, typer.Option(help="Chunks to time of every way, in turns.", min=2)] = 20,
    executor: Executor = "auto",
    output: Annotated[Path | None, typer.Option(help=f"Default: {COMPARISON_NAME} in the policy's folder.")] = None,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Play the policy, its files and fewer of its own steps in the same worlds, and set success against Hz.

    Every way plays the same episodes, and a chunk of each is timed, in turns. The table has paired differences with
    95 % intervals: to the policy itself, and to as many of its own steps as take no longer, the honest rival.

    The table lies beside the policy as bac.compared.json, which bac show prints, and bac.compared.png draws it. Every
    episode is kept in bac.compared.jsonl as it ends: stop with Ctrl-C for the table so far, and type the same line to
    go on, or with more --episodes.
    """
    if not 0 < margin < 1:
        raise typer.BadParameter(f"--margin: must be in (0, 1), got {margin:g}")
    target = output or policy_path / COMPARISON_NAME
    with errors_in_one_line():
        probe(target)  # before minutes of work
        replay = replay_named(executor)
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        settings = options.settings(env_option, task)
        files = _files(file, policy_path)
        counts = steps or [*USUAL, *filter(None, map(as_many, files.values()))]
        host = find_host(loaded.policy)
        own, fewer = host.num_steps, {} if no_rivals else rivals(host, counts)
        ways = {ITSELF: Denoising(), **files, **fewer}
        latencies = _timed(loaded, ways, replay, rounds, seed)  # first, because it refuses a file that does not fit
        setting = {
            "weights": _weights(policy_path), "env": env, "options": settings, "quantity": quantity,
            "at_once": batch_size, "replay": bool(replay), "device": torch.device(device).type, "bac": __version__,
        }  # fmt: skip
        log = EpisodeLog(target.with_suffix(".jsonl"), setting)
        with episodes.playing(loaded, env, settings, num_worlds=batch_size, quantity=quantity, replay=replay) as play:
            seeds = range(episodes.FIRST_SEED, episodes.FIRST_SEED + num_episodes)
            results = play_all(play, ways, seeds, at_once=batch_size, kept=log)
        contenders = tuple(
            _contender(name, way, name in fewer, own, latencies[name], results[name]) for name, way in ways.items()
        )
        facts = _facts(policy_path, env, settings, device)
        compared = Comparison(contenders, latencies[_BY_PYTORCH], quantity, margin, facts)
        compared.save(target)
        typer.echo(f"{compared}\n")
        if compared.num_episodes < num_episodes:
            typer.echo(
                f"Stopped after {compared.num_episodes} of {num_episodes} episodes; type the same line to go on."
            )
        typer.echo(f"{_pictured(compared, target.with_suffix('.png'))}\nwritten to {target}")


def _files(given: Sequence[Path], policy_path: Path) -> dict[str, Denoising]:
    """The ways in files, by name; without any, in that beside the policy, if there is one."""
    own = policy_path / "bac.json"
    paths = given or ([own] if own.is_file() else [])
    ways = {path: load(path) for path in paths}
    short = len({path.name for path in paths}) == len(ways)
    return {f"{path.name if short else path}: {way.name}": way for path, way in ways.items()}


def _contender(
    name: str, way: Denoising, is_rival: bool, own: int | None, latency: Quantiles, results: tuple[float, ...]
) -> Contender:
    solver = "own solver" if way.solver is None else way.solver.name
    return Contender(name, way.num_evaluations or own, solver if is_rival else "", as_many(way), latency, results)


def _timed(
    loaded: checkpoint.Checkpoint, ways: Mapping[str, Denoising], replay: bool | Replay, rounds: int, seed: int
) -> dict[str, Quantiles]:
    """Latency of a chunk of every way, and of the policy by PyTorch; a random observation, batch 1, in turns."""
    batch = loaded.random_observation(1, seed=seed)
    contexts = {name: partial(calling, loaded.policy, way, batch, replay) for name, way in ways.items()}
    contexts[_BY_PYTORCH] = partial(calling, loaded.policy, None, batch, False)
    return {name: quantiles(samples) for name, samples in in_turns(contexts, rounds, turns=_TURNS).items()}


def _weights(policy_path: Path) -> dict[str, str]:
    """Hashes of the policy's files of weights."""
    paths = sorted(path for path in policy_path.glob("*.safetensors") if path.name != observations.NAME)
    return {path.name: file_hash(path) for path in paths}


def _facts(policy_path: Path, env: str, settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Where the numbers come from."""
    return {
        "policy_path": str(policy_path),
        "env": env,
        "env_options": dict(settings),
        "first_seed": episodes.FIRST_SEED,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bac": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": " ".join(["bac", *sys.argv[1:]]),
    }


def _pictured(compared: Comparison, path: Path) -> str:
    try:
        compared.plot(path)
    except BacError as error:  # matplotlib is not installed; the table is whole without it
        return str(error)
    return f"success against Hz: {path}"
