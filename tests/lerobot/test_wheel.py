"""The built wheel, installed beside LeRobot where this repository is out of reach, and LeRobot's own policy on it."""

from __future__ import annotations

import ensurepip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import bac

pytest.importorskip("gym_pusht")

from tests.lerobot import checkpoints, commands

pytestmark = [pytest.mark.slow, pytest.mark.sim]


@dataclass(frozen=True)
class Evaluation:
    """What one `lerobot-eval` said, which actions it gave to Push-T, `[12, 2]`, and how its episode went."""

    log: str
    actions: list[list[float]]
    episode: dict[str, list[float]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it, put there by pip, and nothing else."""
    built, folder = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, commands.ROOT]
    subprocess.run(build, capture_output=True, check=True)
    (wheel,) = built.glob("*.whl")
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    install = [sys.executable, pip / "pip", "install", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(install, capture_output=True, check=True)
    return folder


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).parent / "plugins" / "witness.py"
    return commands.install(tmp_path_factory.mktemp("witness"), "lerobot_env_witness", source)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.multi_task_dit(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def dense(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a schedule."""
    copied = shutil.copytree(checkpoint, tmp_path_factory.mktemp("dense") / "multi_task_dit")
    (copied / "bac.json").unlink()
    return copied


@pytest.fixture(scope="module")
def plain(checkpoint: Path, witness: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Where nobody has installed the wheel."""
    return evaluate(checkpoint, tmp_path_factory.mktemp("plain"), witness)


def evaluate(checkpoint: Path, folder: Path, *paths: Path, **environment: str) -> Evaluation:
    """Run `lerobot-eval` in an empty folder for twelve control steps of Push-T."""
    arguments = [f"--policy.path={checkpoint}", "--policy.device=cpu", "--env.type=pusht", "--seed=7"]
    arguments += ["--env.obs_type=environment_state_agent_pos", "--env.episode_length=12", "--output_dir=out"]
    arguments += ["--eval.n_episodes=1", "--eval.batch_size=1"]
    folder.mkdir(exist_ok=True)
    environment["WITNESS"] = str(folder / "actions")
    module = "lerobot.scripts.lerobot_eval"
    log = commands.start(module, *arguments, folder=folder, log="log", paths=paths, **environment).finish()
    actions = [json.loads(line) for line in (folder / "actions").read_text().splitlines()]
    measured = json.loads((folder / "out" / "eval_info.json").read_text())["per_task"][0]["metrics"]
    return Evaluation(log, actions, {name: measured[name] for name in ("sum_rewards", "max_rewards", "successes")})


def test_with_a_schedule_beside_the_checkpoint_it_says_what_it_wrapped_and_runs_it(site, witness, checkpoint, tmp_path):
    cached = evaluate(checkpoint, tmp_path, site, witness)
    assert "Imported third-party plugin: lerobot_policy_bac" in cached.log
    assert (
        f"bac: MultiTaskDiTPolicy follows {checkpoint / 'bac.json'}: hold, own solver, 7 steps; 8 of 28 updates"
        in cached.log
    )
    assert len(cached.actions) == 12


def test_switched_off_every_action_is_plain_lerobots(site, witness, checkpoint, plain, tmp_path):
    off = evaluate(checkpoint, tmp_path, site, witness, BAC="off")
    assert "Imported third-party plugin: lerobot_policy_bac" in off.log and "follows" not in off.log
    assert len({tuple(action) for action in off.actions}) == 12
    assert (off.actions, off.episode) == (plain.actions, plain.episode)


def test_without_a_schedule_it_replays_and_every_action_is_plain_lerobots(site, witness, dense, plain, tmp_path):
    replayed = evaluate(dense, tmp_path, site, witness)
    assert "bac: MultiTaskDiTPolicy replays: " in replayed.log and " before, same actions; prepared in " in replayed.log
    assert (replayed.actions, replayed.episode) == (plain.actions, plain.episode)


def test_intercepting_makes_the_actions_that_are_replayed_by_default(site, witness, checkpoint, tmp_path):
    replayed = evaluate(checkpoint, tmp_path / "replayed", site, witness)
    assert "bac: MultiTaskDiTPolicy replays: " in replayed.log and " before, following its file; " in replayed.log
    intercepted = evaluate(checkpoint, tmp_path / "intercepted", site, witness, BAC="intercept")
    assert "follows" in intercepted.log and "replays" not in intercepted.log
    assert (replayed.actions, replayed.episode) == (intercepted.actions, intercepted.episode)


def test_the_command_that_comes_with_it_draws_the_schedule(site, checkpoint, tmp_path):
    command = [site / "bin" / "bac", "show", checkpoint / "bac.json"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == f"{bac.load(checkpoint / 'bac.json')}\n"


def test_plain_lerobot_knows_nothing_of_it(plain):
    assert "lerobot_policy_bac" not in plain.log and "follows" not in plain.log
