"""`lingbot_va`: two loops over one transformer, and a cache that outlives the action chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.errors import ScheduleError

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")

pytestmark = pytest.mark.slow

STEPS = 7


def schedule(policy: nn.Module, choose: Callable[[bac.Block], tuple[int, ...]]) -> bac.Schedule:
    return bac.Schedule(STEPS, {block.name: choose(block) for block in find_host(policy).blocks})


def chunks(policy: nn.Module) -> list[Tensor]:
    """Two action chunks of an episode; the second attends to what the first left in the cache."""
    torch.manual_seed(0)
    policy.reset()
    return [policy.predict_action_chunk({}) for _ in range(2)]


def test_the_action_loop_makes_an_evaluation_more_than_its_solver():
    host = find_host(heads.make(backbones.LingBotVA))
    assert (host.num_steps, host.timesteps[-1]) == (STEPS, 0.0)


def test_updating_everywhere_is_bit_equal_in_both_chunks():
    policy = heads.make(backbones.LingBotVA)
    dense = chunks(policy)
    bac.wrap(policy, schedule(policy, lambda _: tuple(range(STEPS))), replay=False)
    assert all(torch.equal(one, other) for one, other in zip(chunks(policy), dense, strict=True))
    bac.unwrap(policy)
    assert all(torch.equal(one, other) for one, other in zip(chunks(policy), dense, strict=True))


def test_trap_the_last_step_writes_the_cache_and_must_update():
    policy = heads.make(backbones.LingBotVA)
    with pytest.raises(ScheduleError, match=r"blocks.0.attn1: must update at the last .*force_last=1"):
        bac.wrap(policy, schedule(policy, lambda _: (0, 3)))
    bac.wrap(policy, schedule(policy, lambda block: (0, 3, 6) if block.name.endswith("attn1") else (0, 3)))


def test_the_video_loop_is_computed_whole():
    policy = heads.make(backbones.LingBotVA)
    calls: list[int] = []
    _count(policy.transformer.blocks[0].ffn, calls)
    bac.wrap(policy, schedule(policy, lambda _: (0, 6)), replay=False)
    chunks(policy)
    assert len(calls) == 2 * (4 + 2)


def _count(owner: nn.Module, calls: list[int]) -> None:
    original = owner.forward

    def counted(*inputs: Any, **options: Any) -> Any:
        calls.append(0)
        return original(*inputs, **options)

    vars(owner)["forward"] = counted
