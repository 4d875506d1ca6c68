"""`wall_x`: the whole policy, from pictures and a prompt, denoised by a vision-language model with experts."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.errors import UnsupportedPolicyError
from tests.contracts import AdapterContract

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")
pytest.importorskip("torchdiffeq", reason="needs lerobot[wallx]")
pytest.importorskip("qwen_vl_utils", reason="needs lerobot[wallx]")

pytestmark = pytest.mark.slow


class TestWallX(AdapterContract):
    num_steps = 10
    blocks_per_layer = 2
    takes_fewer_steps = True
    goes_into_eval_mode = True

    def make_policy(self) -> nn.Module:
        return heads.make(backbones.WallX)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return heads.encoded(batch_size)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.num_steps = num_steps


def test_reusing_changes_the_chunk_a_little():
    contract, policy = TestWallX(), heads.make(backbones.WallX)
    dense = contract.predict(policy)
    bac.wrap(policy, contract.staggered(policy))
    assert 0 < (contract.predict(policy) - dense).abs().mean() < dense.abs().mean()


@pytest.mark.parametrize(("experts", "branch"), [(True, "moe"), (False, "mlp")])
def test_feed_forward_blocks_are_the_experts_where_there_are_any(experts, branch):
    names = [block.name for block in find_host(backbones.WallX(experts)).blocks]
    assert names == [f"layers.{layer}.{part}" for layer in (0, 1) for part in ("self_attn", branch)]


def test_decoding_tokens_is_refused():
    policy = backbones.WallX()
    policy.config.prediction_mode = "fast"
    with pytest.raises(UnsupportedPolicyError, match="one after the other"):
        find_host(policy)
