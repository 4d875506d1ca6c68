"""The `bac` command, on small checkpoints of DP-T and of LeRobot's `multi_task_dit`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.interceptors.patch import interceptors
from bac.cli import checkpoint as checkpoints
from bac.cli import measure
from bac.errors import BacError
from bac.files import write_json
from bac.recording import watching
from bac.solvers import DPMSolver, Multistep
from tests.lerobot.terminal import check_guard, run, uniform
from tests.policies.models import observations, small_policy

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


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
    smooth = [line.split()[:3] for line in result.output.splitlines() if " jerk " in line]
    assert smooth == [["dense", "jerk", "inside"], ["bac.json", "jerk", "inside"]]


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
    assert "give a module that can be imported from" in result.output


def test_import_tells_a_missing_module_from_one_that_lacks_another(folder, tmp_path, monkeypatch):
    (tmp_path / "home_made_policy.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = run("doctor", "--policy-path", folder, "--import", "home_made_policy")
    assert result.exit_code == 1
    assert "No module named 'a_library_that_is_not_there'; install what it needs" in result.output


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


def test_a_gpu_that_is_named_by_its_number_is_the_one_that_clocks_wait_for(tmp_path, monkeypatch):
    current = []
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)  # as if there were two
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    with pytest.raises(BacError, match="there is no such folder"):
        checkpoints.load(tmp_path / "nothing", device="cuda:1")
    assert current == ["cuda:1"]
