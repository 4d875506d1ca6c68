"""Policies whose answer is mental arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.caching.block import BlockKind


class Tick(nn.Module):
    """Returns how often it was computed: 1, 2, 3, ..."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.num_computed = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_computed += 1
        return torch.ones_like(x) * self.num_computed * self.weight.detach()


class TickPolicy(nn.Module):
    """Adds up, over `num_steps` denoising steps, what its blocks return."""

    def __init__(self, num_steps: int = 4, num_blocks: int = 1) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.ticks = nn.ModuleList(Tick() for _ in range(num_blocks))
        self.eval()

    def reset(self) -> None:
        for tick in self.ticks:
            tick.num_computed = 0

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        x = torch.zeros_like(batch["obs"])
        for _ in range(self.num_steps):
            for tick in self.ticks:
                x = x + tick(batch["obs"])
        return x

    def blocks(self, kind: BlockKind = BlockKind.FEED_FORWARD) -> list[bac.Block]:
        return [bac.Block(f"tick{i}", kind, i, tick) for i, tick in enumerate(self.ticks)]


class TinyTransformerPolicy(nn.Module):
    """A transformer diffusion policy in 30 lines: PyTorch's decoder layers and an Euler loop with injected noise."""

    def __init__(self, *, num_steps: int = 7, norm_first: bool = True, num_layers: int = 2) -> None:
        super().__init__()
        self.num_steps = num_steps
        layer = nn.TransformerDecoderLayer(
            12, 3, 20, dropout=0.1, activation="gelu", batch_first=True, norm_first=norm_first
        )
        self.decoder = nn.TransformerDecoder(layer, num_layers)
        self.embed, self.head, self.condition = nn.Linear(2, 12), nn.Linear(12, 2), nn.Linear(3, 12)
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        memory = self.condition(batch["obs"])
        x = torch.randn(len(memory), 5, 2)
        for _ in range(self.num_steps):
            x = x - 0.1 * self.head(self.decoder(self.embed(x), memory)) + 0.01 * torch.randn_like(x)
        return x


def obs(batch_size: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """An observation batch, `[B, 2, 3]`."""
    return {"obs": torch.randn(batch_size, 2, 3, generator=torch.Generator().manual_seed(seed))}


def sweep(policy: nn.Module, steps: tuple[int, ...], num_steps: int) -> bac.Schedule:
    """The same update steps for every block of a policy made of PyTorch layers."""
    names = [block.name for block in find_host(policy).blocks]
    return bac.Schedule(num_steps, dict.fromkeys(names, steps))
