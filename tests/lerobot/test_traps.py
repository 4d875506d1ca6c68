"""What LeRobot does that a cache could fall into, one numbered test each: ``pytest -k trap``.

Traps 1, 3, 4 and 8 stand with the policies that set them: `test_smolvla`, `test_rtc` and `test_multi_task_dit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from lerobot.policies import factory
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.errors import UnsupportedPolicyError
from tests.lerobot import checkpoints, models

pytestmark = pytest.mark.slow


def schedule(policy: nn.Module, *steps: int) -> bac.Schedule:
    host = find_host(policy)
    return bac.Schedule(host.num_steps, dict.fromkeys([block.name for block in host.blocks], steps))


def chunk(policy: nn.Module, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    policy.reset()
    return policy.predict_action_chunk(models.observation(1))


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `torch.compile` trace and generate no code; where LeRobot compiles, it sets the precision too."""
    precision = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch.set_float32_matmul_precision(precision)


def test_trap_2_attention_that_returns_a_pair_returns_a_pair_when_it_is_reused():
    policy, returned = models.pi(name="pi0"), []
    attention = policy.model.paligemma_with_expert.gemma_expert.model.layers[0].self_attn
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    attention.register_forward_hook(lambda module, inputs, output: returned.append(output))
    chunk(policy)
    assert [(type(output), len(output)) for output in returned] == [(tuple, 2)] * 7
    assert torch.equal(returned[0][0], returned[2][0]) and torch.equal(returned[3][0], returned[6][0])


def test_trap_5_loaded_by_lerobot_only_the_first_chunk_is_prepared(tmp_path, plugged_in):
    """`lerobot-rollout` plans for the slowest chunk it ever saw; see `test_rtc_prepared.py`."""
    path, evaluations = checkpoints.smolvla(tmp_path), []
    policy_class = factory.get_policy_class("smolvla")
    plugged_in(policy_class)
    policy = factory.get_policy_class("smolvla").from_pretrained(path)
    project = policy.model.action_out_proj.forward
    policy.model.action_out_proj.forward = lambda features: evaluations.append(1) or project(features)
    counts = []
    for seed in range(4):
        evaluations.clear()
        chunk(policy, seed)
        counts.append(len(evaluations))
    assert counts[0] > 7 and counts[1:] == [0, 0, 0]


def test_trap_5_a_plan_recorded_before_the_robot_moves_is_all_that_live_chunks_need():
    policy, evaluations = models.smolvla(), []
    count(policy.model, "denoise_step", evaluations)
    bac.wrap(policy, schedule(policy, 0, 3), replay=bac.Replay(record="ahead"))
    plan = bac.plan.record(policy, models.observation(1))
    evaluations.clear()
    for seed in range(3):
        chunk(policy, seed)
    assert not evaluations and bac.plan.plans(policy) == (plan,)


@pytest.mark.parametrize("make", [models.smolvla, partial(models.pi, name="pi0")])
def test_trap_6_a_sampler_that_lerobot_compiled_is_refused_with_what_to_type(make, traced_only):
    policy = make(compile_model=True, compile_mode="default")
    with pytest.raises(UnsupportedPolicyError, match="compile_model=False .*--use_torch_compile"):
        find_host(policy)


@pytest.mark.parametrize("replay", [False, True])
def test_trap_6_where_the_caller_is_compiled_afterwards_the_schedule_is_followed_all_the_same(replay, traced_only):
    """`lerobot-rollout --use_torch_compile` compiles `predict_action_chunk` of what it has loaded."""
    policy = models.pi(name="pi0")
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    expected = [chunk(policy, seed) for seed in range(2)]
    bac.wrap(policy, schedule(policy, 0, 3), replay=replay)
    vars(policy)["predict_action_chunk"] = torch.compile(policy.predict_action_chunk)
    assert all(torch.equal(chunk(policy, seed), expected[seed]) for seed in range(2))


def test_trap_7_no_module_is_added_and_what_is_saved_has_the_same_bytes(tmp_path):
    policy = models.smolvla()
    names, places = [name for name, _ in policy.named_modules()], (tmp_path / "before", tmp_path / "after")
    policy.save_pretrained(places[0])
    bac.wrap(policy, schedule(policy, 0, 3))
    chunk(policy)
    policy.save_pretrained(places[1])
    assert [name for name, _ in policy.named_modules()] == names
    for name in ("model.safetensors", "config.json"):
        assert (places[1] / name).read_bytes() == (places[0] / name).read_bytes()


def count(owner: nn.Module, method: str, calls: list[int]) -> None:
    original: Callable[..., Any] = getattr(owner, method)

    def counted(*inputs: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*inputs, **options)

    vars(owner)[method] = counted
