"""Blocks of layers that call their branches as sub-modules, as most transformer code does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from bac.adapters.host import at
from bac.caching.block import Block, BlockKind, Site

Branch = tuple[str, BlockKind]
SELF, CROSS, FEED = BlockKind.SELF_ATTENTION, BlockKind.CROSS_ATTENTION, BlockKind.FEED_FORWARD


def blocks(path: str, layers: Iterable[nn.Module], branches: Sequence[Branch]) -> tuple[Block, ...]:
    """The same branches of every layer.

    Args:
        path: Path of the layers in the denoiser, for the blocks' names.
        layers: In order of evaluation.
        branches: Path of each branch's module in the layer, and its kind, in order of evaluation.
    """
    return tuple(block for index, layer in enumerate(layers) for block in layer_blocks(path, index, layer, branches))


def layer_blocks(path: str, index: int, layer: nn.Module, branches: Sequence[Branch]) -> tuple[Block, ...]:
    """The branches of one layer, named ``path.index.branch``."""
    return tuple(Block(f"{path}.{index}.{name}", kind, index, at(layer, name)) for name, kind in branches)


def memory_projections(layers: Iterable[Any], cross: Sequence[bool]) -> tuple[Site, ...]:
    """Key and value projections of the constant condition, in the ``attn1`` of diffusers' cross-attention layers."""
    attentions = [layer.attn1 for layer, is_cross in zip(layers, cross, strict=True) if is_cross]
    return tuple(Site(module) for attention in attentions for module in (attention.to_k, attention.to_v))


def alternating(path: str, layers: Iterable[nn.Module], cross: Sequence[bool]) -> tuple[Block, ...]:
    """Blocks ``attn1`` and ``ff`` of diffusers' layers; `cross` marks the layers that attend to the condition."""
    return tuple(
        block
        for index, (layer, is_cross) in enumerate(zip(layers, cross, strict=True))
        for block in layer_blocks(path, index, layer, (("attn1", CROSS if is_cross else SELF), ("ff", FEED)))
    )
