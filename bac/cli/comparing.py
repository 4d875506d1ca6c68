"""`bac compare`: success against chunks per second, of the policy, its files, and fewer of its own steps."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bac.adapters import find_host
from bac.certificate import file_hash
from bac.cli import checkpoint, episodes, following, observations, options
from bac.cli.arguments import Device, EnvOptions, Executor, Imports, PolicyPath, Task
from bac.cli.contenders import Clock, Ways, matching_steps, ways_in_files, ways_to_compare
from bac.cli.drawing import COMPARISON_NAME
from bac.cli.episode_log import EpisodeLog
from bac.cli.episodes import Player
from bac.cli.terminal import INTERRUPTED, errors_in_one_line
from bac.denoising import Denoising, load
from bac.errors import BacError
from bac.plan.replay import Replay, replay_named
from bac.tuning.bench import Quantiles
from bac.tuning.comparison import Comparison
from bac.tuning.side_by_side import play_all
from bac.tuning.standings import Contender
from bac.version import __version__

EPILOG = (
    "Example: bac compare --policy-path policies/checkpoints/pusht --env pusht --env-option "
    "obs_type=environment_state_agent_pos --quantity score --file policies/checkpoints/pusht/fitted_4.json"
)
_BY_PYTORCH = "by PyTorch"
_APART = 100_000  # seeds between what --seed=0 and --seed=1 play


def compare(
    policy_path: PolicyPath,
    env: Annotated[str, typer.Option(help="LeRobot's type of environment to play in.")],
    task: Task = None,
    env_option: EnvOptions = [],  # noqa: B006
    file: Annotated[
        list[Path], typer.Option(help="A bac.json to play; repeatable. Default: the one in the policy's folder.")
    ] = [],  # noqa: B006
    steps: Annotated[
        list[int], typer.Option(help="A smaller number of own steps to play; repeatable. Default: 5, 3 and 2.")
    ] = [],  # noqa: B006
    no_rivals: Annotated[
        bool, typer.Option("--no-rivals", help="Play the policy and its files, without smaller numbers of own steps.")
    ] = False,
    num_episodes: Annotated[int, typer.Option("--episodes", help="Episodes that every way plays.", min=2)] = 128,
    quantity: Annotated[
        str, typer.Option(help="What is compared: success, or score (the largest reward of an episode, in [0, 1]).")
    ] = "success",
    margin: Annotated[float, typer.Option(help="A way may lose less than this, in (0, 1).")] = 0.05,
    batch_size: Annotated[int, typer.Option(help="Worlds side by side.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Chunks to time of every way, in turns.", min=2)] = 20,
    executor: Executor = "auto",
    output: Annotated[Path | None, typer.Option(help=f"Default: {COMPARISON_NAME} in the policy's folder.")] = None,
    take: Annotated[
        Path | None, typer.Option(help="Write the way that the verdict names: CKPT/bac.json is what LeRobot follows.")
    ] = None,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Another number plays other episodes.", min=0)] = 0,
) -> None:
    """Compare ways to denoise: how often does each succeed, and how many chunks does a second have?

    The policy itself, its bac.json and smaller numbers of its own steps play the same episodes, and a chunk of each is
    timed, in turns. Every way is compared with the policy. What was made for the policy is also compared with its
    rival: the policy with the most own steps that take no longer. Intervals are of 95 %, over pairs of episodes. The
    verdict has bounds of its own, which hold for all ways together, and however often you look and play on.

    bac.compared.json beside the policy keeps the table, which bac show prints, and bac.compared.png draws it.
    bac.compared.jsonl keeps every episode as soon as it has ended. After Ctrl-C you get the table so far. Type the
    same line to go on, or the same line with more --episodes. The same line with --take CKPT/bac.json plays nothing
    anew, and writes the way that the verdict names, for LeRobot's commands to follow.
    """
    if not 0 < margin < 1:
        raise typer.BadParameter(f"--margin: must be in (0, 1), got {margin:g}")
    if steps and no_rivals:
        raise typer.BadParameter("--steps and --no-rivals: give one of them")
    target = output or policy_path / COMPARISON_NAME
    if target.suffix != ".json":
        raise typer.BadParameter(f"--output: must end in .json, got {target}; the picture and the log lie beside it")
    with errors_in_one_line():
        episodes.check_quantity(quantity)
        following.check_target(target, COMPARISON_NAME)
        if take is not None:
            following.check_target(take, "bac.json")
        # On a GPU episodes are replayed, too; a CPU makes the same actions, and recording for every group takes longer.
        replay = replay_named(executor)
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        settings = options.settings(env_option, task)
        seeds = _seeds(seed, num_episodes)
        log = _log(target, policy_path, env, settings, quantity, batch_size, device)
        with episodes.playing(
            loaded, env, settings, num_worlds=batch_size, quantity=quantity, first_seed=seeds[0],
            num_episodes=num_episodes, replay=replay if torch.device(device).type == "cuda" else False,
        ) as play:  # fmt: skip
            ways = _ways(loaded, ways_in_files(file, policy_path), steps, no_rivals, log, replay)
            before = log.count(ways.by_name.values(), seeds)
            is_whole = before == len(ways.by_name) * num_episodes
            latencies = _timed_before(target, ways, executor) if is_whole and take is not None else None
            if latencies is None:
                latencies = Clock(loaded, replay, rounds, progress=True)({**ways.by_name, _BY_PYTORCH: None})
            typer.echo(f"{len(ways.by_name)} ways, {num_episodes} episodes each; {before} were played before")
            results = _played(play, ways.by_name, seeds, batch_size, log)
        contenders = tuple(ways.contender(name, latencies[name], results[name]) for name in ways.by_name)
        facts = _facts(policy_path, env, settings, seeds[0], device) | {"executor": executor}
        compared = Comparison(contenders, latencies[_BY_PYTORCH], quantity, margin, facts)
        compared.save(target)
        typer.echo(f"\n{compared}\n\n{_pictured(compared, target.with_suffix('.png'))}\nwritten to {target}")
    if compared.num_episodes < num_episodes:
        typer.echo(
            f"Stopped after {compared.num_episodes} of {num_episodes} episodes. The same line goes on.", err=True
        )
        raise typer.Exit(INTERRUPTED)
    with errors_in_one_line():
        if said := _taken(compared.recommended, ways, loaded, take, policy_path / "bac.json"):
            typer.echo(said)


def _seeds(seed: int, num_episodes: int) -> range:
    first = episodes.COMPARED_FROM + seed * _APART
    return range(first, first + num_episodes)


def _log(
    target: Path, policy_path: Path, env: str, settings: Mapping[str, Any], quantity: str, at_once: int, device: str
) -> EpisodeLog:
    """The log of the episodes, with all that decides what a way reaches in one."""
    setting = {
        "policy": _hashes(policy_path), "env": env, "options": dict(settings), "quantity": quantity,
        "at_once": at_once, "device": torch.device(device).type, "versions": _versions(),
    }  # fmt: skip
    return EpisodeLog(target.with_suffix(".jsonl"), setting)


def _ways(
    loaded: checkpoint.Checkpoint,
    files: Mapping[str, Denoising],
    steps: Sequence[int],
    no_rivals: bool,
    log: EpisodeLog,
    replay: bool | Replay,
) -> Ways:
    """What is to be compared. Which own steps match a file, a machine says with its clock, so it is asked once."""
    host = find_host(loaded.policy)
    if no_rivals:
        return ways_to_compare(host, files, steps, None)
    matching = log.remembered(files.values(), lambda: matching_steps(host, files, Clock(loaded, replay)))
    return ways_to_compare(host, files, steps, matching)


def _timed_before(target: Path, ways: Ways, executor: str) -> dict[str, Quantiles] | None:
    """Latencies of the table that is there, if it is of these ways: what it said is what is taken."""
    try:
        found = Comparison.load(target)
    except BacError:
        return None
    facts = found.facts or {}
    if facts.get("executor") != executor or [way.name for way in found.contenders] != list(ways.by_name):
        return None
    return {**{way.name: way.latency for way in found.contenders}, _BY_PYTORCH: found.by_pytorch}


def _played(
    play: Player, ways: Mapping[str, Denoising], seeds: range, at_once: int, log: EpisodeLog
) -> dict[str, tuple[float, ...]]:
    """Results by name, as many of every task; if nothing can be compared yet when it is stopped, say what is kept."""
    try:
        found = play_all(play, ways, seeds, at_once=at_once, kept=log)
        count = min(map(len, found.values())) // play.turn * play.turn
        if not count:
            raise KeyboardInterrupt
        return {name: results[:count] for name, results in found.items()}
    except KeyboardInterrupt:
        typer.echo(
            "Stopped before every way had played. The episodes so far are kept: the same line goes on.", err=True
        )
        raise typer.Exit(INTERRUPTED) from None


def _taken(best: Contender | None, ways: Ways, loaded: checkpoint.Checkpoint, take: Path | None, followed: Path) -> str:
    """Write the way that the verdict names, if it was asked for; a line that says so, or how to ask.

    A file that lay there may have taken minutes to tune, so it is kept under another name.
    """
    if best is None:
        return "" if take is None else f"The verdict names no way, so {take} was not written"
    way = ways.by_name[best.name]
    if take in (None, followed) and followed.is_file() and load(followed) == way:
        return f"LeRobot's commands follow it already: {followed}"
    if take is None:
        return f"Type the line again with --take {followed}, and LeRobot's commands follow it"
    kept = following.unused(take.with_suffix(".before.json"))
    was_there = f"; what was there is kept as {shutil.copy(take, kept)}" if take.is_file() else ""
    signed = replace(way, fingerprint=way.fingerprint or find_host(loaded.policy).fingerprint())
    certificate = following.write(signed, take)
    return "\n".join(filter(None, (f"{best.name}: written to {take}{was_there}", certificate)))


def _hashes(policy_path: Path) -> dict[str, str]:
    """Hashes of all files that say what the policy itself does: weights, adapter, configuration, processors."""
    weights = (path for path in policy_path.glob("*.safetensors") if path.name != observations.NAME)
    settings = (path for path in policy_path.glob("*.json") if path.name.endswith("config.json"))
    paths = [*weights, *settings, *policy_path.glob("policy_*.json")]
    return {path.name: file_hash(path) for path in sorted(paths)}


def _versions() -> dict[str, str]:
    return {"bac": __version__, "torch": torch.__version__, "lerobot": metadata.version("lerobot")}


def _facts(policy_path: Path, env: str, settings: Mapping[str, Any], first_seed: int, device: str) -> dict[str, Any]:
    """Where the numbers come from."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "policy_path": str(policy_path),
        "env": env,
        "env_options": dict(settings),
        "first_seed": first_seed,
        "device": torch.cuda.get_device_name(device) if on_gpu else device,
        "num_threads": torch.get_num_threads(),
        "versions": _versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": " ".join(["bac", *sys.argv[1:]]),
    }


def _pictured(compared: Comparison, path: Path) -> str:
    try:
        compared.plot(path)
    except BacError as error:  # matplotlib is not installed; the table is whole without it
        return str(error)
    return f"success against Hz: {path}"
