"""Latent diffusion: a U-Net of ResNet branches and transformer layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bac.adapters import find_host
from tests.bac.adapters.pipelines import MARKS, TEXT, PipelineContract, guided, made

diffusers = pytest.importorskip("diffusers")
pytestmark = MARKS


class TestUNet(PipelineContract):
    """Latent diffusion: ResNet branches and transformer layers."""

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.UNet2DConditionModel(
            sample_size=4,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(4, 8),
            layers_per_block=1,
            cross_attention_dim=TEXT,
            attention_head_dim=2,
            norm_num_groups=2,
        )
        given = {"unet": model.eval(), "scheduler": diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)}
        return made(diffusers.StableDiffusionPipeline, requires_safety_checker=False, **given)

    size = {"height": 32, "width": 32, "output_type": "latent"}

    def arguments(self, batch_size: int) -> dict[str, Any]:
        return guided(batch_size)

    def test_blocks_are_named_kinded_and_in_order(self) -> None:
        layers = [".".join(block.name.split(".")[:-1]) for block in find_host(self.make_policy()).blocks]
        assert list(dict.fromkeys(layers)) == [
            "down_blocks.0.resnets.0",
            "down_blocks.0.attentions.0.transformer_blocks.0",
            "down_blocks.1.resnets.0",
            "mid_block.resnets.0",
            "mid_block.attentions.0.transformer_blocks.0",
            "mid_block.resnets.1",
            "up_blocks.0.resnets.0",
            "up_blocks.0.resnets.1",
            "up_blocks.1.resnets.0",
            "up_blocks.1.attentions.0.transformer_blocks.0",
            "up_blocks.1.resnets.1",
            "up_blocks.1.attentions.1.transformer_blocks.0",
        ]

    def test_blocks_are_evaluated_in_the_order_of_their_names(self) -> None:
        pipe, seen = self.make_policy(), []
        for block in find_host(pipe).blocks:
            block.owner.register_forward_hook(lambda *_, name=block.name: seen.append(name))
        self.predict(pipe)
        assert seen[: len(seen) // 4] == [block.name for block in find_host(pipe).blocks]
