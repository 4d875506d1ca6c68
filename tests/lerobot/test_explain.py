"""`bac explain` and what `bac bench` says besides latencies, on small checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.cli import checkpoint as checkpoints
from bac.cli.explain import explain
from bac.cli.stages import AROUND, BLOCKS, LANGUAGE, ONCE, SOLVER, STAGES, STEP, VISION, Stopwatch, stages
from tests.lerobot import checkpoints as made
from tests.lerobot import models
from tests.lerobot.terminal import run

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


@pytest.fixture(scope="module")
def smolvla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.smolvla(tmp_path_factory.mktemp("smolvla"))


def test_a_policy_that_sees_and_reads_is_explained_stage_by_stage_and_lever_by_lever(smolvla):
    result = run("explain", "--policy-path", smolvla, "--rounds", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout[result.stdout.index("{") :])
    assert (found["policy"], found["num_steps"], found["not_replayed"]) == ("SmolVLAPolicy", 7, "")
    assert {name for name, seconds in found["stages"].items() if seconds > 0} == {
        *STAGES, "preprocessing", "postprocessing",
    }  # fmt: skip
    levers = {lever["name"]: lever for lever in found["levers"]}
    assert list(levers) == ["replay", "fewer steps: half", "reuse: every second step", "precision: bf16"]
    assert [lever["actions"] for lever in levers.values()] == ["the same", "others", "others", "others"]
    assert all(lever["eager_s"] > 0 and lever["replayed_s"] > 0 for lever in levers.values())
    assert found["plan_bytes"] > 0 and found["weight_bytes"] > 0


def test_the_tables_tell_steps_replay_and_what_to_type(folder):
    result = run("explain", "--policy-path", folder, "--rounds", "2")
    assert result.exit_code == 0, result.output
    assert "DiffusionTransformerPolicy: 5 evaluations a chunk; cpu, " in result.output
    for words in ("steps: blocks", "one step: ", "which replay spares", "fewer steps: 4 of a solver", "bac tune"):
        assert words in result.output
    assert VISION not in result.output  # it sees no pictures


def test_what_cannot_be_replayed_is_explained_with_the_reason(folder, monkeypatch):
    from bac.plan import tape
    from bac.plan.refusal import Refusal

    def refuse(*_: object) -> None:
        raise Refusal("it is only a test")

    monkeypatch.setattr(tape.Tape, "program", refuse)
    explained = explain(checkpoints.load(folder), batch_size=1, rounds=1, seed=0)
    assert (explained.replayed_s, explained.plan_bytes) == (None, 0)
    assert "not replayed: it is only a test" in str(explained)
    assert all(lever.replayed_s is None for lever in explained.levers)


def test_explaining_leaves_the_policy_untouched(folder):
    loaded = checkpoints.load(folder)
    before = {path: dict(vars(module)) for path, module in loaded.policy.named_modules()}
    explain(loaded, batch_size=1, rounds=1, seed=0)
    assert not list(interceptors(loaded.policy))
    assert {path: sorted(vars(module)) for path, module in loaded.policy.named_modules()} == {
        path: sorted(names) for path, names in before.items()
    }


@pytest.mark.parametrize("name", ["EVO1", "Groot", "MolmoAct2"])
def test_steps_are_told_from_the_rest_whatever_a_policy_calls_them(name):
    policy = heads.make(getattr(heads, name))
    host = find_host(policy)
    found = stages(host, heads.encoded(1), rounds=1)
    assert min(found[BLOCKS], found[ONCE], found[SOLVER]) > 0  # how long each takes is the machine's business


def test_layers_that_read_the_prompt_before_the_loop_count_for_no_step():
    host = find_host(models.smolvla())
    found = stages(host, models.observation(1), rounds=1)
    assert found[VISION] > 0 and found[LANGUAGE] > 0 and found[STEP] > 0


def test_every_moment_counts_once():
    watch = Stopwatch(torch.device("cpu"))
    clock = iter(range(100))
    watch._count = lambda: _tick(watch, next(clock))  # a second passes between two looks
    with watch.running(AROUND), watch.running(ONCE):
        with watch.running(VISION):
            pass
        with watch.evaluating(), watch.running(BLOCKS):
            pass
    assert watch.totals == {AROUND: 2, ONCE: 2, VISION: 1, LANGUAGE: 0, BLOCKS: 1, STEP: 2, SOLVER: 1}
    assert watch.evaluations == 1


def _tick(watch: Stopwatch, now: int) -> None:
    if watch.stage is not None:
        watch.totals[watch.stage] += now - watch._since
    watch._since = now


def test_bench_tells_tail_rate_cold_start_and_memory(folder, tmp_path):
    path = tmp_path / "checkpoint"
    shutil.copytree(folder, path)
    loaded = checkpoints.load(path)
    made.put_schedule(path, loaded.policy, 0, 3)
    result = run("bench", "--policy-path", path, "--rounds", "2")
    assert result.exit_code == 0, result.output
    timed = [line for line in result.output.splitlines() if " p50 " in line]
    assert all(" p99 " in line and " Hz " in line for line in timed)
    cold = {
        line.partition(" cold start ")[0].strip(): line for line in result.output.splitlines() if " cold start " in line
    }
    assert list(cold) == ["dense", "bac.json, interpret", "dense, replay", "bac.json, replay"]
    assert cold["dense"].endswith(" 0.0 MB of plans") and not cold["dense, replay"].endswith(" 0.0 MB of plans")
    assert "memory: weights " in result.output
