"""The `bac` command, on small checkpoints of DP-T and of LeRobot's `multi_task_dit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bac
from bac import tuning
from bac.adapters import find_host
from bac.cli import checkpoint as checkpoints
from bac.cli import measure
from bac.cli.app import app
from bac.recording import watching
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from tests.lerobot import checkpoints as made
from tests.policies.models import observations, small_policy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    policy = small_policy(n_layer=1)
    policy.save_pretrained(path)
    for processor in make_diffusion_transformer_pre_post_processors(policy.config, None):
        processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.multi_task_dit(tmp_path_factory.mktemp("dit"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def uniform(steps: tuple[int, ...]) -> bac.Schedule:
    host = find_host(small_policy(n_layer=1))
    return bac.Schedule(host.num_steps, dict.fromkeys([b.name for b in host.blocks], steps), host.fingerprint())


def test_show_draws_a_schedule(tmp_path):
    uniform((0, 2)).save(tmp_path / "bac.json")
    result = run("show", tmp_path / "bac.json")
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split() == ["decoder.layers.0.self_attn", "#.#.."]


def test_show_says_what_is_wrong_in_one_line(tmp_path):
    (tmp_path / "bac.json").write_text("[]")
    result = run("show", tmp_path / "bac.json")
    assert result.exit_code == 1
    assert result.output.startswith("ScheduleError: ")


def test_doctor_lists_blocks_and_says_whether_the_schedule_fits(folder):
    (folder / "bac.json").unlink(missing_ok=True)
    result = run("doctor", "--policy-path", folder)
    assert result.exit_code == 0, result.output
    assert f"torch {torch.__version__.split('+')[0]}" in result.output
    assert "5 evaluations per action chunk, solver DDPMScheduler" in result.output
    assert "decoder.layers.0.cross_attn  cross_attention" in result.output
    assert "no bac.json beside it" in result.output
    uniform((0, 2)).save(folder / "bac.json")
    assert "bac.json fits" in run("doctor", "--policy-path", folder).output


def test_doctor_on_something_else_names_what_is_missing(tmp_path):
    result = run("doctor", "--policy-path", tmp_path)
    assert result.exit_code == 1
    assert "no config.json in it" in result.output


def test_bench_times_dense_and_cached_by_turns(folder):
    uniform((0, 2)).save(folder / "bac.json")
    result = run("bench", "--policy-path", folder, "--rounds", "2")
    assert result.exit_code == 0, result.output
    dense, cached = result.output.splitlines()[-2:]
    assert dense.startswith("dense") and dense.endswith("1.00x of dense eager")
    assert cached.startswith("interpret")


def test_bench_leaves_the_policy_untouched(folder):
    loaded = checkpoints.load(folder)
    batch = loaded.random_observation(1)
    list(measure.report(loaded.policy, uniform((0, 2)), batch, executors=["interpret"], rounds=2))
    assert not list(bac.caching.interceptors.patch.interceptors(loaded.policy))


def test_a_loaded_policy_is_the_one_that_was_saved(folder):
    batch = observations(2)
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    loaded = checkpoints.load(folder).policy.predict_action_chunk(dict(batch), generator=seeds[0])
    assert torch.equal(loaded, small_policy(n_layer=1).predict_action_chunk(dict(batch), generator=seeds[1]))


def test_watching_measures_what_calibrate_measures():
    policy, batch = small_policy(n_layer=1), observations(4)
    expected = bac.calibrate(policy, [batch], seed=3, progress=False)
    torch.manual_seed(3)
    with watching(policy) as watch, torch.no_grad():
        policy.predict_action_chunk(dict(batch))
    assert watch.num_runs == 4
    measured = watch.calibration()
    assert (measured.similarity == expected.similarity).all()
    assert (measured.caching_error == expected.caching_error).all()
    assert not list(bac.caching.interceptors.patch.interceptors(policy))


UPDATES = ["--num-updates", "3", "--num-bubbled", "1"]


def check_calibrated(result: Any, output: Path, policy_path: Path, runs: int) -> None:
    """It says, draws and writes a schedule of 3 updates and more per block that the policy takes."""
    assert result.exit_code == 0, result.output
    schedule, calibration = bac.Schedule.load(output), bac.Calibration.load(output.with_name("bac.calibration.zarr"))
    assert str(schedule) in result.output and f"written to {output}" in result.output
    assert (calibration.num_runs, calibration.num_steps) == (runs, 7)
    assert sorted(map(len, schedule.update_steps.values()))[0] == 3
    bac.wrap(checkpoints.load(policy_path).policy, schedule, executor="interpret")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name a data set of six frames."""
    from lerobot.datasets import LeRobotDataset

    features = {name: {"dtype": "float32", "shape": (2,), "names": None} for name in ("observation.state", "action")}
    root = tmp_path_factory.mktemp("data") / "numbers"
    dataset = LeRobotDataset.create("here/numbers", 10, features, root=root, use_videos=False)
    for number in range(6):
        frame = np.full(2, number, dtype=np.float32)
        dataset.add_frame({"observation.state": frame, "action": frame, "task": "push the block"})
    dataset.save_episode()
    dataset.finalize()
    return ["--dataset", "here/numbers", "--dataset-root", str(root)]


PUSHT = ["--env", "pusht", "--env-option", "episode_length=10"]
PUSHT += ["--env-option", "obs_type=environment_state_agent_pos"]  # two chunks of five actions


def test_calibrate_takes_observations_from_a_data_set(dit, data, tmp_path):
    output = tmp_path / "bac.json"
    where = [*data, "--runs", "5", "--batch-size", "2"]
    result = run("calibrate", "--policy-path", dit, *where, *UPDATES, "--output", output)
    check_calibrated(result, output, dit, runs=5)
    result = run("calibrate", "--policy-path", dit, *data, "--runs", "7", "--output", output)
    assert result.exit_code == 1 and "--runs 6" in result.output


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of pygame, where it is imported
def test_calibrate_plays_in_an_environment(dit, tmp_path):
    output = tmp_path / "bac.json"
    where = [*PUSHT, "--runs", "4", "--batch-size", "2"]
    result = run("calibrate", "--policy-path", dit, *where, *UPDATES, "--output", output)
    check_calibrated(result, output, dit, runs=4)  # two worlds, two chunks in each


def test_calibrate_says_what_an_environment_option_looks_like(dit):
    result = run("calibrate", "--policy-path", dit, "--env", "pusht", "--env-option", "episode_length")
    assert result.exit_code == 2 and "NAME=VALUE" in result.output


def test_calibrate_wants_to_know_where_observations_come_from(folder):
    result = run("calibrate", "--policy-path", folder)
    assert result.exit_code == 2


def check_guard(result: Any, output: Path, policy_path: Path, runs: int) -> bac.Guard:
    """It says, draws and writes a guard that the policy with its schedule takes."""
    assert result.exit_code == 0, result.output
    guard = bac.Guard.load(output)
    assert str(guard) in result.output and f"written to {output}" in result.output
    assert guard.num_runs == runs
    schedule = bac.Schedule.load(policy_path / "bac.json")
    bac.wrap(checkpoints.load(policy_path).policy, schedule, guard=guard)
    return guard


def test_guard_takes_observations_from_a_data_set(dit, data, tmp_path):
    where = [*data, "--runs", "5", "--batch-size", "2", "--output", tmp_path / "guard.json"]
    result = run("guard", "--policy-path", dit, *where, "--response", "denser", "--num-watched", "3")
    guard = check_guard(result, tmp_path / "guard.json", dit, runs=5)
    assert len(guard.cells) == 3
    assert guard.response.update_steps[guard.cells[0][0]] == (0, 1, 3, 5)  # (0, 3) of 7, and the middles
    assert run("show", tmp_path / "guard.json").output == f"{guard}\n"


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of pygame, where it is imported
def test_guard_watches_the_cached_policy_in_an_environment_and_lies_beside_the_schedule(dit):
    where = [*PUSHT, "--runs", "6", "--batch-size", "2", "--every", "2", "--cooldown", "20"]
    result = run("guard", "--policy-path", dit, *where, "--response", "dense")
    guard = check_guard(result, dit / "guard.json", dit, runs=6)  # of three episodes, since every second chunk counts
    assert (guard.response, guard.cooldown) == ("dense", 20)
    assert "Next: BAC_GUARD=dense lerobot-eval" in result.output
    assert "guard.json fits: BAC_GUARD=" in run("doctor", "--policy-path", dit).output
    (dit / "guard.json").unlink()


def test_guard_says_what_it_lacks(dit, tmp_path):
    result = run("guard", "--policy-path", dit)
    assert result.exit_code == 2 and "give either --env or --dataset" in result.output
    result = run("guard", "--policy-path", tmp_path, "--env", "pusht")
    assert result.exit_code == 1 and "bac calibrate" in result.output
    result = run("guard", "--policy-path", dit, "--env", "pusht", "--response", "panic")
    assert result.exit_code == 1 and "log, denser or dense" in result.output


def test_guard_explains_itself():
    text = " ".join(run("guard", "--help").output.split())
    assert "notices, while a robot runs, that the schedule no longer fits" in text
    assert "BAC_GUARD=dense lerobot-eval" in text


TUNE = ["--target-hz", "0.5", "--evaluations", "0", "--runs", "4", "--batch-size", "2"]


def check_tuned(result: Any, output: Path, policy_path: Path) -> None:
    """It says what it chose, and the policy can be put to it."""
    assert result.exit_code == 0, result.output
    candidate = tuning.load(output)
    assert str(candidate) in result.output and f"written to {output}" in result.output
    assert output.with_name("tuned.json").is_file()
    candidate.put_on(checkpoints.load(policy_path).policy, executor="interpret")
    assert run("show", output).output == f"{candidate}\n"


def test_tune_takes_observations_from_a_data_set(dit, data, tmp_path):
    result = run("tune", "--policy-path", dit, *data, *TUNE, "--output", tmp_path / "bac.json")
    check_tuned(result, tmp_path / "bac.json", dit)


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of pygame, where it is imported
def test_tune_plays_in_an_environment_and_lies_beside_the_weights(dit):
    result = run("tune", "--policy-path", dit, *PUSHT, *TUNE)
    check_tuned(result, dit / "bac.json", dit)
    assert "bac.json fits: LeRobot runs" in run("doctor", "--policy-path", dit).output
    (dit / "bac.json").unlink()


def test_tune_says_what_a_budget_is(dit, data):
    result = run("tune", "--policy-path", dit, *data, "--runs", "4")
    assert result.exit_code == 1 and "target_hz" in result.output


def test_tune_explains_itself():
    text = " ".join(run("tune", "--help").output.split())
    assert "chosen together, by running them" in text and "bac tune --policy-path CKPT --env pusht" in text
