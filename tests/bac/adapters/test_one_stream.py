"""Pipelines of diffusers whose layers have one stream and look at a prompt: PixArt, Sana, HunyuanDiT, Wan."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.errors import UnsupportedPolicyError
from bac.published import FirstBlock
from tests.bac.adapters.pipelines import MARKS, TEXT, TOKENS, PipelineContract, guided, made, masks

diffusers = pytest.importorskip("diffusers")
pytestmark = MARKS


class TestPixArt(PipelineContract):
    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=6,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=12,
            sample_size=2,
            caption_channels=TEXT,
            use_additional_conditions=False,
        )
        solver = diffusers.DPMSolverMultistepScheduler()
        return made(diffusers.PixArtAlphaPipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        none = {"negative_prompt": None, "use_resolution_binning": False}
        return {**guided(batch_size), **masks(batch_size), **none}


class TestSana(PipelineContract):
    """Linear attention; a feed-forward of convolutions."""

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=6,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=6,
            cross_attention_dim=12,
            caption_channels=TEXT,
            sample_size=2,
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.SanaPipeline, transformer=model.eval(), scheduler=solver)

    size = {"height": 64, "width": 64, "output_type": "latent"}

    def arguments(self, batch_size: int) -> dict[str, Any]:
        none = {"negative_prompt": None, "use_resolution_binning": False}
        return {**guided(batch_size), **masks(batch_size), **none}


class TestHunyuanDiT(PipelineContract):
    """Long skip connections between layers, which stay fresh."""

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.HunyuanDiT2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            patch_size=1,
            sample_size=2,
            hidden_size=16,
            num_layers=2,
            mlp_ratio=2.0,
            cross_attention_dim=TEXT,
            cross_attention_dim_t5=8,
            pooled_projection_dim=6,
            text_len=TOKENS,
            text_len_t5=5,
            use_style_cond_and_image_meta_size=False,
        )
        given = {"transformer": model.eval(), "scheduler": diffusers.DDPMScheduler()}
        return made(diffusers.HunyuanDiTPipeline, requires_safety_checker=False, **given)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        second = {f"{key}_2": value for key, value in guided(batch_size, tokens=5, size=8).items()}
        both = {**masks(batch_size), **masks(batch_size, 5, "_2"), "use_resolution_binning": False}
        return {**guided(batch_size), **second, **both}


class TestWan(PipelineContract):
    """Films; guidance by two calls."""

    contexts = 2
    size = {"height": 16, "width": 16, "num_frames": 1, "output_type": "latent"}

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=TEXT,
            freq_dim=8,
            ffn_dim=14,
            num_layers=2,
            rope_max_seq_len=8,
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.WanPipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        return guided(batch_size)

    def test_an_online_rule_decides_for_each_context(self) -> None:
        pipe = self.make_policy()
        dense = self.predict(pipe)
        bac.wrap(pipe, FirstBlock(self.num_steps, threshold=0.0))
        assert torch.equal(self.predict(pipe), dense)

    def test_two_denoisers_in_one_run_are_refused(self) -> None:
        pipe = self.make_policy()
        pipe.transformer_2 = pipe.transformer
        with pytest.raises(UnsupportedPolicyError, match="has two denoisers"):
            find_host(pipe)
