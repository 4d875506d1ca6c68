"""The `bac` command, on small checkpoints of DP-T and of LeRobot's `multi_task_dit`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bac
from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.calibration import Calibration
from bac.caching.interceptors.patch import interceptors
from bac.cli import checkpoint as checkpoints
from bac.cli import measure
from bac.cli.app import app
from bac.files import write_json
from bac.recording import watching
from bac.solvers import DPMSolver, Multistep
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from tests.lerobot import checkpoints as made
from tests.lerobot import commands
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


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.multi_task_dit(tmp_path_factory.mktemp("flow"), objective="flow_matching", num_integration_steps=7)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def uniform(steps: tuple[int, ...]) -> bac.Denoising:
    """DP-T's own solver, and every block updated at `steps`."""
    host = find_host(small_policy(n_layer=1))
    names = [block.name for block in host.blocks]
    return bac.Denoising(schedule=bac.Schedule(host.num_steps, dict.fromkeys(names, steps), host.fingerprint()))


@dataclass(frozen=True)
class Filed:
    """A checkpoint with a ``bac.json`` beside it, and what that holds."""

    path: Path
    denoising: bac.Denoising


def reused(host: Host) -> bac.Denoising:
    """As `bac calibrate` writes it: the policy's own solver and steps, and a schedule."""
    updates = {block.name: (0, 3) for block in host.blocks}
    return bac.Denoising(schedule=bac.Schedule(7, updates, host.fingerprint()))


def fitted(host: Host) -> bac.Denoising:
    """As `bac tune` writes it: fewer steps of a fitted solver."""
    return bac.Denoising(
        Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1))), (90, 40), fingerprint=host.fingerprint()
    )


def both(host: Host) -> bac.Denoising:
    """Likewise: fewer steps of another solver, and reuse."""
    schedule = bac.Schedule(4, {block.name: (0, 2) for block in host.blocks}, estimator="taylor-1")
    return bac.Denoising(DPMSolver(1), (90, 60, 30, 5), schedule=schedule, fingerprint=host.fingerprint())


def fewer(host: Host) -> bac.Denoising:
    """Likewise, for a flow: fewer steps of its own solver."""
    return bac.Denoising(num_steps=3, fingerprint=host.fingerprint())


def save_as_it_was(denoising: bac.Denoising, path: Path) -> None:
    """A schedule in the format of the first versions."""
    schedule = denoising.schedule
    document = {"format": "bac.schedule", "version": 1, "num_steps": schedule.num_steps}
    document |= {"update_steps": dict(schedule.update_steps), "fingerprint": schedule.fingerprint.to_dict()}
    write_json(path, document)


KINDS: dict[str, tuple[str, Callable[[Host], bac.Denoising], Callable[[bac.Denoising, Path], None]]] = {
    "schedule": ("dit", reused, bac.Denoising.save),
    "schedule of an older version": ("dit", reused, save_as_it_was),
    "fitted steps": ("dit", fitted, bac.Denoising.save),
    "fewer steps and reuse": ("dit", both, bac.Denoising.save),
    "own steps": ("flow", fewer, bac.Denoising.save),
}


@pytest.fixture(scope="module", params=KINDS)
def filed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """Each kind of ``bac.json``, beside a policy of its own."""
    name, make, save = KINDS[request.param]
    path = tmp_path_factory.mktemp("filed") / "checkpoint"
    shutil.copytree(request.getfixturevalue(name), path)
    denoising = make(find_host(checkpoints.load(path).policy))
    save(denoising, path / "bac.json")
    return Filed(path, denoising)


def test_show_draws_every_kind_of_bac_json(filed):
    result = run("show", filed.path / "bac.json")
    assert (result.exit_code, result.output) == (0, f"{filed.denoising}\n")


def test_doctor_says_of_every_kind_of_bac_json_what_lerobot_will_run(filed):
    result = run("doctor", "--policy-path", filed.path)
    assert result.exit_code == 0, result.output
    assert f"bac.json fits: LeRobot runs {filed.denoising.name} wherever" in result.output


def timed(result: Any) -> dict[str, str]:
    """What `bac bench` says of each way, by its name."""
    rows = [line.partition(" p50 ") for line in result.output.splitlines() if " p50 " in line]
    return {name.strip(): rest for name, _, rest in rows}


def test_bench_times_every_kind_of_bac_json_by_turns(filed):
    result = run("bench", "--policy-path", filed.path, "--rounds", "2")
    assert result.exit_code == 0, result.output
    assert f"bac.json: {filed.denoising.name}" in result.output.splitlines()
    rows = timed(result)
    assert list(rows) == ["dense", "bac.json, interpret", "dense, replay", "bac.json, replay"]
    assert rows["dense"].endswith(" 1.00x of dense eager")


def test_guard_watches_every_kind_of_bac_json_that_reuses_and_says_that_the_others_do_not(filed, data, tmp_path):
    output = tmp_path / "guard.json"
    where = [*data, "--runs", "2", "--batch-size", "2", "--num-watched", "3", "--output", output]
    result = run("guard", "--policy-path", filed.path, *where)
    if filed.denoising.schedule is not None:
        assert check_guard(result, output, filed.path, runs=2).estimator == filed.denoising.estimator_name
        return
    assert result.exit_code == 1 and not output.exists()
    sentence = (
        f"ScheduleError: guard: {filed.denoising.name} reuses nothing, so there is nothing to watch; leave it out"
    )
    assert sentence in result.output.splitlines()


def test_show_draws_a_schedule(tmp_path):
    uniform((0, 2)).save(tmp_path / "bac.json")
    result = run("show", tmp_path / "bac.json")
    assert result.exit_code == 0
    first, title, row, *_ = result.output.splitlines()
    assert first == "Denoising: hold, own solver, 5 steps"
    assert title.startswith("Schedule: 3 blocks, 5 denoising steps, 6 of 15 updates")
    assert row.split() == ["decoder.layers.0.self_attn", "#.#.."]


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


def test_a_policy_that_nothing_registers_is_named_with_what_to_type(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "type": "home_made"}))
    result = run("doctor", "--policy-path", tmp_path)
    assert result.exit_code == 1
    assert "holds a policy of type 'home_made', which nothing registers" in result.output
    assert "--import policies.diffusion_transformer" in result.output


def test_import_takes_the_module_or_the_package_that_registers_a_policy(folder):
    for name in ("policies.diffusion_transformer", "policies.diffusion_transformer.modeling_diffusion_transformer"):
        result = run("doctor", "--policy-path", folder, "--import", name)
        assert result.exit_code == 0, result.output
    result = run("doctor", "--policy-path", folder, "--import", "policies.nothing")
    assert result.exit_code == 1 and "BacError: --import policies.nothing: No module named" in result.output


def test_bench_times_only_what_it_is_asked_for(folder):
    uniform((0, 2)).save(folder / "bac.json")
    result = run("bench", "--policy-path", folder, "--rounds", "2", "--executor", "interpret")
    assert result.exit_code == 0, result.output
    assert list(timed(result)) == ["dense", "bac.json, interpret"]


def test_bench_says_what_it_lacks(folder):
    (folder / "bac.json").unlink(missing_ok=True)
    result = run("bench", "--policy-path", folder)
    assert result.exit_code == 1 and "make one first: bac tune, or bac calibrate" in result.output
    uniform((0, 2)).save(folder / "bac.json")
    result = run("bench", "--policy-path", folder, "--executor", "fast")
    assert result.exit_code == 1 and "executor: must be interpret, auto or replay, got 'fast'" in result.output


def test_bench_leaves_the_policy_untouched(folder):
    loaded = checkpoints.load(folder)
    batch = loaded.random_observation(1)
    list(measure.report(loaded.policy, uniform((0, 2)), batch, executors=["interpret"], rounds=2))
    assert not list(interceptors(loaded.policy))


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
    assert not list(interceptors(policy))


UPDATES = ["--num-updates", "3", "--num-bubbled", "1"]


def check_calibrated(result: Any, output: Path, policy_path: Path, runs: int) -> None:
    """It says, draws and writes a schedule of 3 updates and more per block that the policy takes."""
    assert result.exit_code == 0, result.output
    schedule, calibration = bac.load(output).schedule, Calibration.load(output.with_name("bac.calibration.zarr"))
    assert str(schedule) in result.output and f"written to {output}" in result.output
    assert (calibration.num_runs, calibration.num_steps) == (runs, 7)
    assert sorted(map(len, schedule.update_steps.values()))[0] == 3
    bac.wrap(checkpoints.load(policy_path).policy, schedule, replay=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name a data set of six frames."""
    return numbers(tmp_path_factory.mktemp("data") / "numbers", {"observation.state": 2, "action": 2})


def numbers(root: Path, sizes: dict[str, int], unit: float = 1.0) -> list[str]:
    """Make a data set whose frames hold 0 to 5 `unit` everywhere; the options that name it."""
    from lerobot.datasets import LeRobotDataset

    features = {name: {"dtype": "float32", "shape": (size,), "names": None} for name, size in sizes.items()}
    dataset = LeRobotDataset.create("here/numbers", 10, features, root=root, use_videos=False)
    for number in range(6):
        frame = {name: np.full(size, number * unit, dtype=np.float32) for name, size in sizes.items()}
        dataset.add_frame({**frame, "task": "push the block"})
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
    bac.wrap(checkpoints.load(policy_path).policy, bac.load(policy_path / "bac.json"), guard=guard)
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


def test_tune_adds_two_files_to_a_checkpoint_and_touches_no_other(tuned):
    assert set(tuned) == {"bac.json", "bac.tuned.json"}


def test_what_tune_wrote_takes_fewer_sweeps_than_the_policy_itself(tuned, shipped):
    assert bac.load(shipped / "bac.json").sweeps < 5


def test_doctor_and_bench_accept_what_tune_wrote(tuned, shipped):
    name = bac.load(shipped / "bac.json").name
    assert f"bac.json fits: LeRobot runs {name} wherever" in run("doctor", "--policy-path", shipped).output
    result = run("bench", "--policy-path", shipped, "--rounds", "2", "--executor", "interpret")
    assert result.exit_code == 0, result.output
    assert f"bac.json: {name}" in result.output.splitlines()
