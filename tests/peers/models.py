"""Tiny random transformers of diffusers in a denoising loop of our own, so that a peer and `bac` run the same loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import bac
from bac.adapters.diffusers import blocks_of
from bac.caching.calibration import Calibration
from bac.fingerprint import Fingerprint

NUM_STEPS = 12
NOISE = {"noise": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))}
LAYERS = 4


class Sampler(nn.Module):
    """`NUM_STEPS` large steps along what a model returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def reset(self) -> None:
        pass

    def evaluate(self, x: Tensor, timestep: int) -> Tensor:
        raise NotImplementedError

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        x = batch["noise"]
        for step in range(NUM_STEPS):
            x = x - 0.2 * self.evaluate(x, 960 - 80 * step)
        return x


class DiT(Sampler):
    """Pictures of 8 x 8 x 4 by class; every layer's branches are gated by the timestep."""

    def __init__(self) -> None:
        from diffusers import DiTTransformer2DModel

        torch.manual_seed(3)
        super().__init__(
            DiTTransformer2DModel(
                sample_size=8,
                num_layers=LAYERS,
                patch_size=2,
                attention_head_dim=16,
                num_attention_heads=2,
                in_channels=4,
                out_channels=4,
                num_embeds_ada_norm=1000,
                attention_bias=True,
            )
        )

    def evaluate(self, x: Tensor, timestep: int) -> Tensor:
        labels = torch.arange(len(x))
        return self.model(x, torch.full((len(x),), timestep), labels).sample

    def layers(self) -> list[bac.Block]:
        """Whole layers as blocks."""
        return [
            bac.Block(f"layers.{index}", "layer", index, layer)
            for index, layer in enumerate(self.model.transformer_blocks)
        ]


class Flux(Sampler):
    """The same pictures as 64 tokens; two streams, then one."""

    def __init__(self) -> None:
        from diffusers import FluxTransformer2DModel

        torch.manual_seed(3)
        super().__init__(
            FluxTransformer2DModel(
                patch_size=1,
                in_channels=4,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                axes_dims_rope=(4, 4, 8),
            )
        )

    def evaluate(self, x: Tensor, timestep: int) -> Tensor:
        size = len(x)
        tokens = self.model(
            hidden_states=x.flatten(2).mT,
            encoder_hidden_states=torch.linspace(-1, 1, 5 * 32).view(1, 5, 32).expand(size, -1, -1),
            pooled_projections=torch.linspace(-1, 1, 32).expand(size, -1),
            timestep=torch.full((size,), timestep / 1000),
            img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(8.0), torch.arange(8.0)),
            txt_ids=torch.zeros(5, 3),
        ).sample
        return tokens.mT.unflatten(2, (8, 8))


def chunk(policy: Sampler) -> Tensor:
    policy.reset()
    with torch.no_grad():
        return policy.predict_action_chunk(NOISE)


def under(policy: Sampler, apply: Callable[[Any], Any], *, in_context: bool = False) -> Tensor:
    """What a copy of the policy returns once a peer was applied to its model; hooks of diffusers want a context."""
    own = copy.deepcopy(policy)
    apply(own.model)
    if in_context:
        from diffusers.hooks import HookRegistry

        HookRegistry.check_if_exists_or_initialize(own.model)._set_context("only")
    return chunk(own)


def blocks(policy: Sampler) -> tuple[bac.Block, ...]:
    return blocks_of(policy.model)


def described(found: Sequence[bac.Block]) -> Calibration:
    """A calibration for schedulers that read nothing of it but blocks and steps."""
    flat, none = np.ones((len(found), NUM_STEPS, NUM_STEPS)), np.zeros(len(found))
    return Calibration(
        blocks=tuple(block.described() for block in found),
        num_steps=NUM_STEPS,
        num_runs=2,
        similarity=flat,
        similarity_std=0 * flat,
        half_similarity=np.stack([flat, flat]),
        caching_error=none,
        caching_error_std=none,
        half_caching_error=np.stack([none, none]),
        fingerprint=Fingerprint(num_steps=NUM_STEPS),
    )
