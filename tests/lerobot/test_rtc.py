"""Real-time chunking: the sampler is guided towards what is left of the last chunk, with gradients enabled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.rollout.inference.rtc import supports_rtc_inference
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from tests.lerobot import models

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")

pytestmark = pytest.mark.slow


def guided(made: nn.Module) -> nn.Module:
    """With real-time chunking on, as `lerobot-rollout --inference.type=rtc` sets it."""
    made.config.rtc_config = RTCConfig(execution_horizon=3)
    made.init_rtc_processor()
    return made


HEADS = (heads.Groot, heads.EVO1, heads.MolmoAct2)
POLICIES: dict[str, Callable[[], nn.Module]] = {
    "pi0": lambda: guided(models.pi(name="pi0")),
    "pi05": lambda: guided(models.pi(name="pi05")),
    "smolvla": lambda: guided(models.smolvla()),
    "groot": lambda: heads.make(heads.Groot),
    "evo1": lambda: heads.make(heads.EVO1),
    "molmoact2": lambda: heads.make(heads.MolmoAct2),
}


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> nn.Module:
    return POLICIES[request.param]()


def chunk(policy: nn.Module, left_over: Tensor | None, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    batch = models.observation(1)
    if isinstance(policy, HEADS):
        batch, left_over = heads.encoded(1), left_over if left_over is None else left_over[:, : heads.ACTIONS]
    with torch.no_grad():  # as all of LeRobot's policies have it; guidance enables gradients by itself
        return policy.predict_action_chunk(batch, inference_delay=1, prev_chunk_left_over=left_over)


def left_over(seed: int = 5) -> Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))


def schedule(policy: nn.Module, *steps: int) -> bac.Schedule:
    host = find_host(policy)
    return bac.Schedule(host.num_steps, dict.fromkeys([block.name for block in host.blocks], steps))


def test_updating_everywhere_is_bit_equal_under_guidance(policy):
    dense = chunk(policy, left_over())
    assert not torch.equal(dense, chunk(policy, None))
    bac.wrap(policy, schedule(policy, *range(7)), replay=False)
    assert torch.equal(chunk(policy, left_over()), dense)


def test_no_evaluation_is_added(policy):
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    assert torch.isfinite(chunk(policy, left_over())).all()


def test_chunks_do_not_depend_on_the_ones_before(policy):
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    first = chunk(policy, left_over(1))
    chunk(policy, None, seed=1)
    chunk(policy, left_over(2), seed=2)
    assert torch.equal(chunk(policy, left_over(1)), first)


def test_trap_3_what_inference_mode_stored_is_not_used_with_gradients(policy):
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    expected = chunk(policy, left_over())
    with torch.inference_mode():
        chunk(policy, None)
    assert torch.equal(chunk(policy, left_over()), expected)


def test_what_is_returned_holds_on_to_no_graph(policy):
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    assert not chunk(policy, left_over()).requires_grad


def test_a_wrapped_policy_still_declares_its_support(policy):
    assert supports_rtc_inference(policy)
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    assert supports_rtc_inference(policy)


def test_a_guided_run_gives_the_same_where_replay_is_allowed(policy):
    bac.wrap(policy, schedule(policy, 0, 3), replay=False)
    expected = chunk(policy, left_over())
    bac.wrap(policy, schedule(policy, 0, 3))
    for _ in range(3):
        assert torch.equal(chunk(policy, left_over()), expected)
