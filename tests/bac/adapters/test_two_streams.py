"""Pipelines of diffusers whose layers join two streams: Stable Diffusion 3 and Flux."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.recording import record_features
from tests.bac.adapters.pipelines import MARKS, TEXT, PipelineContract, made, pooled

diffusers = pytest.importorskip("diffusers")
pytestmark = MARKS


class TestSD3(PipelineContract):
    """Attention over both streams at once returns a pair; the last layer lets the text stream end."""

    blocks_per_layer = 4

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.SD3Transformer2DModel(
            sample_size=2,
            patch_size=1,
            in_channels=4,
            num_layers=2,
            attention_head_dim=6,
            num_attention_heads=2,
            joint_attention_dim=TEXT,
            caption_projection_dim=12,
            pooled_projection_dim=5,
            out_channels=4,
            pos_embed_max_size=4,
            dual_attention_layers=(0,),
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.StableDiffusion3Pipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        return pooled(batch_size)

    def test_blocks_are_named_kinded_and_in_order(self) -> None:
        names = [block.name.removeprefix("transformer_blocks.") for block in find_host(self.make_policy()).blocks]
        assert names == ["0.attn", "0.attn2", "0.ff", "0.ff_context", "1.attn", "1.ff"]


class TestFlux(PipelineContract):
    """Guidance by two calls, which the pipeline names; layers whose two branches share a projection."""

    contexts = 2

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=TEXT,
            pooled_projection_dim=5,
            axes_dims_rope=(2, 2, 4),
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.FluxPipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        return pooled(batch_size) | {"true_cfg_scale": 2.0 if self.contexts == 2 else 1.0}

    def test_blocks_are_named_kinded_and_in_order(self) -> None:
        blocks = find_host(self.make_policy()).blocks
        assert [(block.name.split("_")[0], block.layer) for block in blocks] == [
            *[("transformer", 0)] * 3,
            ("single", 1),
            ("single", 2),
        ]

    def test_each_context_has_features_of_its_own(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.schedule(pipe, (0,)))
        batch = self.make_batch(2)
        ours = record_features(pipe, batch)["single_transformer_blocks.1.proj_out"]
        bac.unwrap(pipe)
        dense = record_features(pipe, batch)["single_transformer_blocks.1.proj_out"]
        assert torch.equal(ours[3], dense[0])  # both contexts: four samples, each held from its own first step
        assert not torch.equal(ours[3][:2], ours[3][2:])


class TestFluxWithoutGuidance(TestFlux):
    """The same wrapped pipeline may be called in one context."""

    contexts = 1

    def test_features_are_recorded_by_step_with_contexts_as_samples(self) -> None:
        features = record_features(self.make_policy(), self.make_batch(3))
        assert {values.shape[:2] for values in features.values()} == {(4, 3)}

    def test_each_context_has_features_of_its_own(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.staggered(pipe))
        alone = self.predict(pipe)
        self.contexts = 2
        self.predict(pipe)
        self.contexts = 1
        assert torch.equal(self.predict(pipe), alone)
