"""Adapters of PEFT: LeRobot loads the policy, which is wrapped, and PEFT then puts its layers around the policy's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import PushtEnv
from lerobot.policies import factory
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor, nn

import bac
from bac.caching.interceptors.patch import interceptors
from bac.cli import checkpoint as cli
from bac.cli import doctor
from bac.lerobot import trial
from tests.contracts_flow import denoising
from tests.lerobot import checkpoints, models

peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:peft")]

EXPERT = r".*lm_expert.*\.(q_proj|v_proj|o_proj|down_proj)"


@pytest.fixture
def adapter(tmp_path: Path, plugged_in: Any) -> Path:
    """A checkpoint as LeRobot saves it after training with LoRA, random weights in it, and a schedule beside it."""
    base, path = checkpoints.smolvla(tmp_path), tmp_path / "adapter"
    (base / "bac.json").rename(tmp_path / "bac.json")
    policy = SmolVLAPolicy.from_pretrained(base)
    torch.manual_seed(5)
    adapted = peft.get_peft_model(policy, peft.LoraConfig(r=2, target_modules=EXPERT, init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(path)
    policy.config.use_peft = True
    policy.config.save_pretrained(path)
    for name in base.glob("policy_*"):  # the processors
        shutil.copy(name, path)
    (tmp_path / "bac.json").rename(path / "bac.json")
    plugged_in(SmolVLAPolicy)
    return path


def load(adapter: Path) -> nn.Module:
    """As `lerobot-eval` does it."""
    config = PreTrainedConfig.from_pretrained(adapter)
    config.pretrained_path = adapter
    return factory.make_policy(config, env_cfg=PushtEnv(), rename_map={"a": "b"}).eval()


def chunk(policy: nn.Module) -> Tensor:
    torch.manual_seed(0)
    policy.reset()
    return policy.predict_action_chunk(models.observation(1))


def test_a_policy_with_an_adapter_follows_the_schedule_that_lies_beside_the_adapter(adapter, monkeypatch):
    monkeypatch.setenv("BAC", "intercept")
    policy, calls = load(adapter), []
    assert isinstance(policy, peft.PeftModel)
    block = policy.get_base_model().model.vlm_with_expert.lm_expert.layers[0].mlp
    block.down_proj.register_forward_hook(lambda *_: calls.append(1))
    chunk(policy)
    assert len(calls) == 2


def test_with_an_adapter_and_nothing_configured_the_adapted_policy_is_replayed(adapter, monkeypatch):
    (adapter / "bac.json").unlink()
    monkeypatch.setattr(trial, "_GAIN", float("inf"))
    replayed = load(adapter)
    found = [chunk(replayed) for _ in range(3)]
    monkeypatch.setenv("BAC", "off")
    plain = load(adapter)
    assert all(torch.equal(chunk(plain), one) for one in found)
    assert bac.describe(replayed.get_base_model()).plans


def test_with_an_adapter_updating_everywhere_is_bit_equal_to_no_wrapping(adapter, monkeypatch):
    schedule = bac.load(adapter / "bac.json").schedule
    everywhere = dict.fromkeys(schedule.block_names, tuple(range(schedule.num_steps)))
    bac.Denoising(schedule=replace(schedule, update_steps=everywhere)).save(adapter / "bac.json")
    cached = chunk(load(adapter))
    monkeypatch.setenv("BAC", "off")
    plain = load(adapter)
    assert torch.equal(cached, chunk(plain))
    assert not list(interceptors(plain))
    with plain.disable_adapter():
        assert not torch.equal(cached, chunk(plain)), "the adapter does nothing, so this test shows nothing"


def test_with_an_adapter_a_fitted_solver_makes_its_few_steps(adapter, monkeypatch):
    denoising(3).save(adapter / "bac.json")
    found = chunk(load(adapter))
    monkeypatch.setenv("BAC", "off")
    plain = load(adapter)
    bac.wrap(plain.get_base_model(), denoising(3), replay=False)
    assert torch.equal(chunk(plain), found)


def test_the_bac_command_sees_the_policy_with_its_adapter(adapter, monkeypatch):
    monkeypatch.setenv("BAC", "off")
    loaded = cli.load(adapter).policy
    assert type(loaded) is SmolVLAPolicy
    assert torch.equal(chunk(loaded), chunk(load(adapter)))
    assert "bac.json fits" in list(doctor.examine(loaded, adapter))[-1]
