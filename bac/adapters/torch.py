"""Blocks of PyTorch's own transformer layers: the Diffusion Policy transformer (DP-T) and its kin.

`nn.TransformerDecoderLayer` computes its three branches in methods and adds the residuals itself, with `norm_first` or
without, so shadowing the methods suffices. `nn.TransformerEncoderLayer` in eval mode may take a fused path that never
calls these methods; that path must be off.
"""

from __future__ import annotations

import torch
from torch import nn

from bac.caching.block import Block, BlockKind
from bac.errors import UnsupportedPolicyError

_DECODER_BRANCHES = (
    ("self_attn", BlockKind.SELF_ATTENTION, "_sa_block"),
    ("cross_attn", BlockKind.CROSS_ATTENTION, "_mha_block"),
    ("ffn", BlockKind.FEED_FORWARD, "_ff_block"),
)
_ENCODER_BRANCHES = (_DECODER_BRANCHES[0], _DECODER_BRANCHES[2])


def transformer_blocks(denoiser: nn.Module) -> tuple[Block, ...]:
    """Blocks of the denoiser's decoder layers or, if it has none, of its encoder layers.

    An encoder beside a decoder encodes the condition. It is not part of the residual stream, so it is left alone.

    Raises:
        UnsupportedPolicyError: There are only encoder layers and PyTorch's fused path is on.
    """
    decoder_layers = _layers(denoiser, nn.TransformerDecoderLayer)
    if decoder_layers:
        return _branches(decoder_layers, _DECODER_BRANCHES)
    encoder_layers = _layers(denoiser, nn.TransformerEncoderLayer)
    if encoder_layers and torch.backends.mha.get_fastpath_enabled():
        raise UnsupportedPolicyError(
            f"{type(denoiser).__name__}: its {len(encoder_layers)} nn.TransformerEncoderLayer take a fused path in "
            "eval mode that never calls their attention and feed-forward blocks. Switch it off first: "
            "torch.backends.mha.set_fastpath_enabled(False)"
        )
    return _branches(encoder_layers, _ENCODER_BRANCHES)


def batch_dim(denoiser: nn.Module) -> int:
    """0 if the layers take ``[B, T, D]``, 1 if they take ``[T, B, D]``."""
    layers = _layers(denoiser, nn.TransformerDecoderLayer) or _layers(denoiser, nn.TransformerEncoderLayer)
    attentions = [layer.self_attn for _, layer in layers if isinstance(layer.self_attn, nn.MultiheadAttention)]
    return 1 if attentions and not attentions[0].batch_first else 0


def _layers(denoiser: nn.Module, kind: type[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in denoiser.named_modules() if isinstance(module, kind)]


def _branches(
    layers: list[tuple[str, nn.Module]], branches: tuple[tuple[str, BlockKind, str], ...]
) -> tuple[Block, ...]:
    return tuple(
        Block(f"{path}.{suffix}", kind, index, layer, attribute)
        for index, (path, layer) in enumerate(layers)
        for suffix, kind, attribute in branches
    )
