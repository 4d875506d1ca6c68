"""What tuning chose, run again on a fresh copy of a tiny policy, and written."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.solvers import SOLVERS
from bac.tuning import Budget, Trial, Tuned
from bac.tuning.families import fewer_steps, together
from bac.tuning.machine import Machine
from eval.setup.cells import dense
from eval.tune import publish, ready

pytestmark = pytest.mark.slow

GRID = tuple(range(99, -1, -1))
AGAIN = {"p50_ms": 5.0, "p95_ms": 7.0}


@pytest.fixture(scope="module")
def policy(pusht_settings):
    return pusht_settings(max_episode_steps=5).load_policy().policy


@pytest.fixture(scope="module")
def cached(policy) -> bac.Denoising:
    """Three updates on five of DDIM's steps."""
    policy.diffusion.use_solver("DDIM", 100)
    names = [block.name for block in find_host(policy).blocks]
    made = together(SOLVERS[0], GRID, (59, 79, 99), names, "hold", stride=10)
    return replace(made, fingerprint=find_host(policy).fingerprint())


def tuned(cached: bac.Denoising, *, affordable: bool) -> Tuned:
    """Of two trials the cached one if it is affordable, else fewer steps."""
    trials = (
        Trial("fewer steps", fewer_steps(SOLVERS[1], GRID, (50, 98)), 0.2, 0.1, 0.3, 0.003, 0.004),
        Trial("together", cached, 0.02, 0.01, 0.03, 0.006),
    )
    budget = Budget.of(target_latency_s=0.1 if affordable else 0.005)
    return Tuned(trials[affordable], trials, budget, Machine(0.001, 0.0, 0.001))


def test_a_report_a_picture_and_the_choice_are_written(cached, tmp_path):
    chosen = tuned(cached, affordable=True)
    publish(tmp_path / "new", chosen, AGAIN)
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == {"bac.tuned.json", "tuned.txt", "front.png", "provenance.json", "bac.json"}
    assert bac.load(tmp_path / "new" / "bac.json") == cached
    text = (tmp_path / "new" / "tuned.txt").read_text()
    assert text == f'{chosen}\n\nrun again: {{"p50_ms": 5.0, "p95_ms": 7.0}}\n'
    stored = json.loads((tmp_path / "new" / "bac.tuned.json").read_text())
    assert (stored["chosen"]["name"], len(stored["rows"])) == ("together, hold, DPM-Solver++ 1, 5 steps", 2)
    assert json.loads((tmp_path / "new" / "provenance.json").read_text())["second_run"] == AGAIN


def test_fewer_steps_are_a_choice_without_a_schedule(cached, tmp_path):
    publish(tmp_path, tuned(cached, affordable=False), AGAIN)
    assert bac.load(tmp_path / "bac.json").schedule is None
    assert json.loads((tmp_path / "bac.tuned.json").read_text())["chosen"]["denoising"]["schedule"] is None


def test_the_choice_is_put_on_a_fresh_policy(pusht_settings, cached):
    batch = {"observation.state": torch.zeros(1, 2, 2), "observation.environment_state": torch.zeros(1, 2, 16)}
    call = ready(pusht_settings(max_episode_steps=5), dense(solver="DDIM"), cached, batch)
    policy, *_ = call.args
    assert bac.describe(policy).denoising == cached
    assert call().shape == (1, 8, 2)


def test_a_budget_that_makes_no_sense_is_refused_before_anything_is_played(tmp_path):
    command = [sys.executable, "-m", "eval.tune", "policy=pusht", "tune.target_hz=-3", f"tune.results={tmp_path}/new"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "target_hz: must be a number above 0, got -3" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "new").exists()
