"""`lerobot-eval` runs this repository's own policy cached. `test_wheel.py` does the same with LeRobot's, off and on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("gym_pusht")

from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from tests.lerobot import checkpoints, commands
from tests.policies import models

pytestmark = [pytest.mark.slow, pytest.mark.sim]

PLUGINS = Path(__file__).parent / "plugins"
SHIPPED = commands.ROOT / "policies" / "checkpoints" / "pusht"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models, "STATE", 2)
    monkeypatch.setattr(models, "ENVIRONMENT", 16)
    monkeypatch.setattr(models, "ACTIONS", 2)
    policy, path = models.small_policy(n_layer=1), tmp_path / "checkpoint"
    policy.save_pretrained(path)
    for processor in make_diffusion_transformer_pre_post_processors(policy.config, None):
        processor.save_pretrained(path)
    checkpoints.put_schedule(path, policy, 0, 2)
    return path


@pytest.fixture
def site(tmp_path: Path) -> list[Path]:
    """`bac`, installed as a plug-in."""
    return [commands.install(tmp_path / "site", "lerobot_policy_bac"), commands.ROOT]


def evaluate(checkpoint: Path, folder: Path, site: list[Path], **environment: str) -> str:
    """Run `lerobot-eval` for twelve control steps of Push-T, which are three chunks; what it said."""
    arguments = [
        f"--policy.path={checkpoint}",
        "--policy.device=cpu",
        "--env.type=pusht",
        "--output_dir=out",
        "--seed=7",
    ]
    arguments += ["--env.obs_type=environment_state_agent_pos", "--env.episode_length=12"]
    arguments += ["--eval.n_episodes=1", "--eval.batch_size=1"]
    arguments += ["--dp_t.discover_packages_path=policies.diffusion_transformer"]
    module = "lerobot.scripts.lerobot_eval"
    log = commands.start(module, *arguments, folder=folder, log="log", paths=site, **environment).finish()
    assert json.loads((folder / "out" / "eval_info.json").read_text())["overall"]["n_episodes"] == 1
    return log


def test_lerobot_eval_logs_what_it_wrapped_and_runs_it(checkpoint, site, tmp_path):
    log = evaluate(checkpoint, tmp_path / "run", site)
    assert "Imported third-party plugin: lerobot_policy_bac" in log
    assert "DiffusionTransformerPolicy follows" in log and "6 of 15 updates" in log
    assert "bac: DiffusionTransformerPolicy replays: " in log and ", following its file; prepared in " in log
    assert "Guard" not in log


def test_lerobot_eval_puts_a_guard_on_duty_and_says_at_the_end_what_it_saw(checkpoint, site, tmp_path):
    checkpoints.put_guard(checkpoint)
    log = evaluate(checkpoint, tmp_path / "run", site, BAC_GUARD="dense")
    assert "bac: Guard: 9 watched cells of 3 blocks x 5 steps" in log and "then: dense" in log
    assert "drift guard, chunk 1: the schedule no longer fits what is seen" in log
    assert "bac: DiffusionTransformerPolicy: Guard: 3 chunks, 1 probed; 9 of 9 looks above their limit" in log
    assert "1 alarms, 2 chunks made otherwise" in log


def test_the_shipped_policy_is_replayed_with_nothing_configured_and_acts_as_it_would_without_bac(site, tmp_path):
    witness = commands.install(tmp_path / "witness", "lerobot_env_witness", PLUGINS / "witness.py")
    seen = {}
    for name, environment in {"replayed": {}, "off": {"BAC": "off"}}.items():
        folder = tmp_path / name
        log = evaluate(SHIPPED, folder, [witness, *site], WITNESS=str(tmp_path / f"{name}.jsonl"), **environment)
        assert ("bac: DiffusionTransformerPolicy replays: " in log) == (name == "replayed")
        metrics = json.loads((folder / "out" / "eval_info.json").read_text())["per_task"][0]["metrics"]
        seen[name] = (tmp_path / f"{name}.jsonl").read_text(), metrics["sum_rewards"], metrics["max_rewards"]
    assert len(seen["off"][0].splitlines()) == 12
    assert seen["replayed"] == seen["off"]
