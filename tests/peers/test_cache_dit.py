"""cache-dit with a static step mask: all layers but the first add what they last added."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bac
from bac.caching.estimators import Residual
from bac.caching.schedulers.mask import mask_schedule
from bac.published.block_ranges import Phase, block_ranges_schedule
from tests.peers.models import LAYERS, NUM_STEPS, Sampler, chunk, described, under

cache_dit = pytest.importorskip("cache_dit")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROUNDING = 2e-5  # theirs is one difference over all layers, ours is added up layer by layer


class Layer(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(size), nn.Linear(size, 3 * size), nn.Linear(3 * size, size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + self.down(torch.tanh(self.up(self.norm(hidden_states))))


class Stack(nn.Module):
    """Nothing but layers, since cache-dit puts one module in place of all; diffusers' DiT asks the first for more."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(Layer(8) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.transformer_blocks:
            x = layer(x)
        return x


class Stacked(Sampler):
    def __init__(self) -> None:
        torch.manual_seed(3)
        super().__init__(Stack())

    def evaluate(self, x: Tensor, timestep: int) -> Tensor:
        return self.model(x)

    def layers(self) -> list[bac.Block]:
        return [
            bac.Block(f"layers.{index}", "layer", index, layer)
            for index, layer in enumerate(self.model.transformer_blocks)
        ]


def theirs(policy: Stacked, steps: np.ndarray) -> torch.Tensor:
    """In the first run only: their mask moves by a step from one run to the next."""
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=2,
        num_inference_steps=NUM_STEPS,
        steps_computation_mask=steps.astype(int).tolist(),
        steps_computation_policy="static",
    )

    def apply(model: Any) -> None:
        adapter = cache_dit.BlockAdapter(
            transformer=model,
            blocks=model.transformer_blocks,
            forward_pattern=cache_dit.ForwardPattern.Pattern_3,
            check_forward_pattern=False,
        )
        cache_dit.enable_cache(adapter, cache_config=config)

    return under(policy, apply)


@pytest.mark.parametrize("updates", [(0, 1, 2, 5, 6, 10), (0, 1, 4, 8)])
def test_a_static_mask_of_whole_layers_equals_cache_dits(updates: tuple[int, ...]) -> None:
    policy = Stacked()
    steps = np.isin(np.arange(NUM_STEPS), updates)
    mask = np.repeat(steps[:, None], LAYERS, axis=1)
    mask[:, 0] = True
    expected = theirs(policy, steps)
    schedule = mask_schedule(described(policy.layers()), mask)
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Residual()), blocks=policy.layers(), replay=False)
    assert torch.allclose(chunk(policy), expected, rtol=ROUNDING, atol=ROUNDING)


def test_a_range_of_layers_at_an_interval_is_such_a_mask() -> None:
    policy = Stacked()
    steps = (np.arange(NUM_STEPS) < 2) | (np.arange(NUM_STEPS) % 3 == 2)
    phases = [Phase(0, (), 1), Phase(2, range(1, LAYERS), 3)]
    expected = theirs(policy, steps)
    schedule = block_ranges_schedule(described(policy.layers()), phases)
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Residual()), blocks=policy.layers(), replay=False)
    assert torch.allclose(chunk(policy), expected, rtol=ROUNDING, atol=ROUNDING)
