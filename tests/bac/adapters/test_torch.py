"""PyTorch's own transformer layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bac
from bac.adapters import find_host
from bac.errors import UnsupportedPolicyError
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs
from tests.contracts import AdapterContract


class TestDecoderLayersNormFirst(AdapterContract):
    num_steps = 7
    norm_first = True

    def make_policy(self) -> nn.Module:
        torch.manual_seed(11)
        return TinyTransformerPolicy(num_steps=self.num_steps, norm_first=self.norm_first)

    def make_batch(self, batch_size: int) -> dict[str, torch.Tensor]:
        return obs(batch_size)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.num_steps = num_steps


class TestDecoderLayersNormLast(TestDecoderLayersNormFirst):
    norm_first = False


class EncoderPolicy(TinyTransformerPolicy):
    """A denoiser of encoder layers: no cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Identity()
        layer = nn.TransformerEncoderLayer(12, 2, 20, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.eval()

    def predict_action_chunk(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        x = torch.randn(len(batch["obs"]), 5, 2)
        for _ in range(self.num_steps):
            x = x - 0.1 * self.head(self.encoder(self.embed(x)))
        return x


@pytest.fixture
def fused_path_off():
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.usefixtures("fused_path_off")
class TestEncoderLayers(AdapterContract):
    num_steps = 7
    blocks_per_layer = 2

    def make_policy(self) -> nn.Module:
        torch.manual_seed(11)
        return EncoderPolicy()

    def make_batch(self, batch_size: int) -> dict[str, torch.Tensor]:
        return obs(batch_size)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.num_steps = num_steps

    def test_the_fused_path_switched_on_later_is_noticed(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        torch.backends.mha.set_fastpath_enabled(True)
        with pytest.raises(bac.BacError, match="never evaluated"):
            self.predict(policy)


def test_encoder_layers_are_refused_while_their_fused_path_is_on():
    with pytest.raises(UnsupportedPolicyError, match="set_fastpath_enabled\\(False\\)"):
        find_host(EncoderPolicy())


def test_a_decoder_layer_has_three_blocks_in_order_of_evaluation():
    blocks = find_host(TinyTransformerPolicy(num_layers=2)).blocks
    assert [block.name for block in blocks[:3]] == [
        "decoder.layers.0.self_attn",
        "decoder.layers.0.cross_attn",
        "decoder.layers.0.ffn",
    ]
    assert [block.kind.name for block in blocks[3:]] == ["SELF_ATTENTION", "CROSS_ATTENTION", "FEED_FORWARD"]


def test_a_policy_without_blocks_is_told_how_to_name_them():
    with pytest.raises(UnsupportedPolicyError, match=r"blocks=\[bac\.Block\("):
        find_host(TickPolicy())


def test_two_blocks_of_one_name_are_refused():
    policy = TickPolicy(num_blocks=2)
    twice = [bac.Block("tick", "layer", 0, tick) for tick in policy.ticks]
    with pytest.raises(UnsupportedPolicyError, match="names must be unique, got 'tick' more than once"):
        find_host(policy, twice)


def test_a_module_without_a_sampler_is_refused():
    with pytest.raises(UnsupportedPolicyError, match="predict_action_chunk"):
        find_host(TinyTransformerPolicy().decoder)


def test_something_that_is_no_module_is_refused():
    with pytest.raises(UnsupportedPolicyError, match="must be an nn.Module or a pipeline of diffusers, got dict"):
        find_host({})


def test_a_policy_of_one_evaluation_is_refused_by_name_with_what_can_be_taken():
    act = type("ACTPolicy", (nn.Module,), {"__module__": "lerobot.policies.act.modeling_act"})
    with pytest.raises(
        UnsupportedPolicyError, match="ACTPolicy.*one evaluation.*diffusion, .*policies.diffusion_transformer"
    ):
        find_host(act())
