"""`bac calibrate`, `bac guard` and `bac tune`, on data sets and in Push-T."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import bac
from bac.caching.calibration import Calibration
from bac.cli import checkpoint as checkpoints
from bac.cli import measure
from tests.lerobot import commands
from tests.lerobot.terminal import check_guard, numbers, run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


UPDATES = ["--num-updates", "3", "--num-bubbled", "1"]


def check_calibrated(result: Any, output: Path, policy_path: Path, runs: int) -> None:
    """It says, draws and writes a schedule of 3 updates and more per block that the policy takes."""
    assert result.exit_code == 0, result.output
    schedule, calibration = bac.load(output).schedule, Calibration.load(output.with_name("bac.calibration.zarr"))
    assert str(schedule) in result.output and f"written to {output}" in result.output
    assert (calibration.num_runs, calibration.num_steps) == (runs, 7)
    assert sorted(map(len, schedule.update_steps.values()))[0] == 3
    bac.wrap(checkpoints.load(policy_path).policy, schedule, replay=False)


PUSHT = ["--env", "pusht", "--env-option", "episode_length=10"]
PUSHT += ["--env-option", "obs_type=environment_state_agent_pos"]  # two chunks of five actions


def test_calibrate_takes_observations_from_a_data_set(dit, data, tmp_path):
    output = tmp_path / "bac.json"
    where = [*data, "--runs", "5", "--batch-size", "2"]
    result = run("calibrate", "--policy-path", dit, *where, *UPDATES, "--output", output)
    check_calibrated(result, output, dit, runs=5)
    result = run("calibrate", "--policy-path", dit, *data, "--runs", "7", *UPDATES, "--output", output)
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


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of pygame, where it is imported
@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (["nowhere"], "BacError: --env nowhere, --env-option {}: LeRobot refuses them: Environment type 'nowhere'"),
        (["pusht", "--env-option", "wind=3"], "LeRobot refuses them: PushtEnv.__init__() got an unexpected"),
        (["pusht", "--env-option", "obs_type=smell"], "LeRobot refuses them: Unknown obs_type smell"),
    ],
)
def test_an_environment_that_does_not_fit_is_one_sentence(dit, where, sentence):
    result = run("calibrate", "--policy-path", dit, "--runs", "2", *UPDATES, "--env", *where)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert sentence in result.output


def test_a_simulator_that_is_not_installed_is_one_sentence(dit, monkeypatch):
    import gymnasium

    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    monkeypatch.delitem(gymnasium.registry, "gym_pusht/PushT-v0", raising=False)
    result = run("calibrate", "--policy-path", dit, "--runs", "2", *UPDATES, *PUSHT)
    assert result.exit_code == 1 and "install its simulator: pip install 'lerobot[pusht]'" in result.output


def test_more_updates_than_steps_are_refused_before_anything_is_played(dit, monkeypatch):
    monkeypatch.setattr(measure, "observations_in", pytest.fail)
    result = run("calibrate", "--policy-path", dit, *PUSHT)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "the policy makes 7 denoising steps" in result.output and "type --num-updates 3" in result.output


def test_a_data_set_that_cannot_be_read_is_one_sentence(dit, tmp_path):
    where = ["--dataset", "here/nothing", "--dataset-root", tmp_path / "nothing"]
    result = run("calibrate", "--policy-path", dit, *where, *UPDATES)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "BacError: --dataset here/nothing: " in result.output
    assert "name its folder if it is here: --dataset-root" in result.output


def test_calibrate_wants_to_know_where_observations_come_from(folder):
    result = run("calibrate", "--policy-path", folder)
    assert result.exit_code == 2


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
    assert "--env.type=pusht --env.episode_length=10 --env.obs_type=environment_state_agent_pos" in result.output
    assert "guard.json fits: BAC_GUARD=" in run("doctor", "--policy-path", dit).output
    (dit / "guard.json").unlink()


def test_guard_says_what_it_lacks(dit, tmp_path):
    result = run("guard", "--policy-path", dit)
    assert result.exit_code == 2 and "give either --env or --dataset" in result.output
    result = run("guard", "--policy-path", tmp_path, "--env", "pusht")
    assert result.exit_code == 1 and "make one first: bac tune, or bac calibrate, --policy-path" in result.output
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
    denoising = bac.load(output)
    assert str(denoising) in result.output and f"written to {output}" in result.output
    report = json.loads(output.with_name("bac.tuned.json").read_text())
    assert report["chosen"]["denoising"] == json.loads(output.read_text())
    bac.wrap(checkpoints.load(policy_path).policy, denoising, replay=False)
    assert run("show", output).output == f"{denoising}\n"
    reported = run("show", output.with_name("bac.tuned.json")).output
    head = f"Report of bac tune: {len(report['rows'])} ways to denoise were tried. Its choice:"
    assert reported == f"{head}\n{denoising}\n"


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


def test_tune_takes_the_observations_that_calibrate_kept(shipped, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(shipped, path)
    sizes = {"observation.state": 2, "observation.environment_state": 16, "action": 2}
    data = numbers(tmp_path / "numbers", sizes, unit=80.0)
    calibrated = run(
        "calibrate", "--policy-path", path, *data, "--runs", "4", "--num-updates", "2", "--num-bubbled", "1"
    )
    assert calibrated.exit_code == 0, calibrated.output
    result = run("tune", "--policy-path", path, "--max-action-error", "0.5", "--evaluations", "0")
    check_tuned(result, path / "bac.json", path)
    assert "observations: those of bac calibrate" in result.output
    kept = path / "bac.observations.safetensors"
    assert run("show", kept).output.startswith("Observations: 4 in 1 batches, for bac tune\n")
    assert f"{kept.name}: Observations: 4 in" in run("doctor", "--policy-path", path).output
    kept.write_bytes(b"{}")
    assert "Make it anew: bac calibrate" in run("show", kept).output
    assert f"{kept.name} cannot be used: " in run("doctor", "--policy-path", path).output
    result = run("tune", "--policy-path", path, "--max-action-error", "0.5")
    assert result.exit_code == 1 and "Make it anew: bac calibrate" in result.output


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_episodes_decide_and_a_certificate_says_what_they_showed(dit, tmp_path):
    output = tmp_path / "bac.json"
    played = ["--batch-size", "2", "--episodes", "3", "--quantity", "score"]
    result = run("tune", "--policy-path", dit, *PUSHT, *TUNE, *played, "--output", output)
    assert result.exit_code == 0, result.output
    assert "closed loop: score minus the policy's own, paired; margin 0.05" in result.output
    certificate = bac.certificate.Certificate.load(tmp_path / "certificate.json")
    assert (certificate.verdict, certificate.n, certificate.quantity) == ("undecided", 3, "score")
    assert certificate.schedule_hash == bac.certificate.file_hash(output)
    assert "WARNING: none was shown" in result.output
    assert run("show", tmp_path / "certificate.json").output.startswith("not decided")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--dataset", "some/where", "--episodes", "3"], "name it with --env"),
        ([*PUSHT, "--episodes", "3", "--margin", "2"], "must be in (0, 1)"),
        ([*PUSHT, "--episodes", "3", "--quantity", "joy"], "must be one of success, score"),
        ([*PUSHT, "--control-hz", "30"], "needs n_action_steps"),
        ([*PUSHT, "--executor", "joy"], "executor: must be"),
    ],
)
def test_episodes_that_cannot_be_played_are_refused_before_the_search(dit, options, sentence, monkeypatch):
    monkeypatch.setattr(bac, "tune", lambda *_, **__: pytest.fail("it searched"))
    monkeypatch.setattr(measure, "observations_in", lambda *_, **__: pytest.fail("it played"))
    result = run("tune", "--policy-path", dit, *options, *TUNE)
    assert result.exit_code != 0
    assert sentence in " ".join(result.output.replace("│", " ").split())


def test_tune_without_observations_says_where_they_come_from(shipped):
    result = run("tune", "--policy-path", shipped, "--target-hz", "25")
    assert result.exit_code == 2 and "bac calibrate first" in " ".join(result.output.split())


def test_tune_says_what_a_budget_is(dit, data):
    result = run("tune", "--policy-path", dit, *data, "--runs", "4")
    assert result.exit_code == 1 and "target_hz" in result.output


def test_tune_explains_itself():
    text = " ".join(run("tune", "--help").output.split())
    assert (
        "chosen together, by running them" in text
        and "bac tune --policy-path policies/checkpoints/pusht --env pusht" in text
    )


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the policy for Push-T, at five steps of DDIM."""
    path = tmp_path_factory.mktemp("shipped") / "pusht"
    shutil.copytree(commands.ROOT / "policies" / "checkpoints" / "pusht", path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "noise_scheduler_type": "DDIM", "num_inference_steps": 5}))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of pygame, where it is imported
def test_an_environment_without_the_policys_observations_is_one_sentence(shipped):
    result = run("tune", "--policy-path", shipped, "--env", "pusht", "--target-hz", "25")  # its default: pixels
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "BacError: --env pusht: gives no observation.environment_state, which the policy takes" in result.output


@pytest.fixture(scope="module")
def tuned(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `bac tune` adds to the folder of the shipped policy, file by file."""
    before = contents(shipped)
    sizes = {"observation.state": 2, "observation.environment_state": 16, "action": 2}
    data = numbers(tmp_path_factory.mktemp("data") / "numbers", sizes, unit=80.0)
    where = [*data, "--runs", "4", "--batch-size", "2"]
    result = run("tune", "--policy-path", shipped, *where, "--max-action-error", "0.5", "--evaluations", "0")
    check_tuned(result, shipped / "bac.json", shipped)
    after = contents(shipped)
    assert {name: after.get(name) for name in before} == before
    return {name: content for name, content in after.items() if name not in before}


def test_tune_adds_three_files_to_a_checkpoint_and_touches_no_other(tuned):
    assert set(tuned) == {"bac.json", "bac.tuned.json", "bac.tuned.png"}


def test_what_tune_wrote_takes_fewer_sweeps_than_the_policy_itself(tuned, shipped):
    assert bac.load(shipped / "bac.json").sweeps < 5


def test_doctor_and_bench_accept_what_tune_wrote(tuned, shipped):
    name = bac.load(shipped / "bac.json").name
    assert f"bac.json fits: LeRobot runs {name} wherever" in run("doctor", "--policy-path", shipped).output
    result = run("bench", "--policy-path", shipped, "--rounds", "2", "--executor", "interpret")
    assert result.exit_code == 0, result.output
    assert f"bac.json: {name}" in result.output.splitlines()
