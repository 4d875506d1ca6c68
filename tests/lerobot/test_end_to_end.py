"""`lerobot-eval` finds the installed plug-in, and a checkpoint with a schedule beside it runs cached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bac
from bac.adapters import find_host

pytest.importorskip("gym_pusht")

from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from tests.policies import models

pytestmark = [pytest.mark.slow, pytest.mark.sim]

ROOT = Path(__file__).parents[2]


def installed(folder: Path) -> Path:
    """A folder that, on the path, looks like an installation of our distribution."""
    info = folder / "lerobot_policy_bac-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lerobot_policy_bac\nVersion: 0\n")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models, "STATE", 2)
    monkeypatch.setattr(models, "ENVIRONMENT", 16)
    monkeypatch.setattr(models, "ACTIONS", 2)
    policy, path = models.small_policy(n_layer=1), tmp_path / "checkpoint"
    policy.save_pretrained(path)
    for processor in make_diffusion_transformer_pre_post_processors(policy.config, None):
        processor.save_pretrained(path)
    host = find_host(policy)
    steps = dict.fromkeys([block.name for block in host.blocks], (0, 2))
    bac.Schedule(host.num_steps, steps, host.fingerprint()).save(path / "bac.json")
    return path


def evaluate(checkpoint: Path, output: Path, site: Path | None, **environment: str) -> tuple[str, dict[str, object]]:
    """Run `lerobot-eval` for twelve control steps of Push-T; what it logged and what it measured."""
    command = [sys.executable, "-m", "lerobot.scripts.lerobot_eval", f"--policy.path={checkpoint}"]
    command += ["--policy.device=cpu", "--env.type=pusht", "--env.obs_type=environment_state_agent_pos"]
    command += ["--env.episode_length=12", "--eval.n_episodes=1", "--eval.batch_size=1", f"--output_dir={output}"]
    command += ["--dp_t.discover_packages_path=policies.diffusion_transformer"]
    paths = [str(path) for path in (site, ROOT) if path is not None]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", **environment}
    result = subprocess.run(command, cwd=output.parent, env=env, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr[-3000:]
    info = json.loads((output / "eval_info.json").read_text())
    return result.stdout + result.stderr, info["overall"]


def test_lerobot_eval_logs_what_it_wrapped_and_runs_it(checkpoint, tmp_path):
    log, measured = evaluate(checkpoint, tmp_path / "out", installed(tmp_path / "site"))
    assert "Imported third-party plugin: lerobot_policy_bac" in log
    assert "DiffusionTransformerPolicy follows" in log and "6 of 15 updates" in log
    assert measured["n_episodes"] == 1


def test_bac_off_is_plain_lerobot(checkpoint, tmp_path):
    off_log, off = evaluate(checkpoint, tmp_path / "off", installed(tmp_path / "site"), BAC="off")
    plain_log, plain = evaluate(checkpoint, tmp_path / "plain", None)
    assert "follows" not in off_log + plain_log
    assert off["avg_max_reward"] == plain["avg_max_reward"]
