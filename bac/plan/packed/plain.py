"""What the sublayers of `bac.plan.packed` compute, in PyTorch's operators, for tests and for trials.

Weights are `[in, out]`. A sublayer returns its feature, and the stream after it: ``x + feature + rest``. Most take

- `x`: rows, `[..., E]`, at most 32 of them. Attention takes them for the T tokens of one sample.
- `norm`, `shift`, `eps`: the layer norm's weight `[E]`, its bias `[E]`, and what it adds to a variance.
- `rest`: added to the stream, too: as `x` or `[E]`. Part of the feature that is returned if `with_rest`.
- `by`: how to multiply.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]


def multiplied(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias``, in one operator for two dimensions."""
    return torch.addmm(bias, x.flatten(0, -2), weight).view(*x.shape[:-1], -1)


def norm_product(
    x: Tensor, norm: Tensor, shift: Tensor, eps: float, weight: Tensor, bias: Tensor, *, by: Multiply = multiplied
) -> Tensor:
    """``norm(x) @ weight + bias``.

    Args:
        weight: `[E, N]`.
        bias: `[N]`.
    """
    return by(F.layer_norm(x, norm.shape, norm, shift, eps), weight, bias)


def feed_forward(
    x: Tensor,
    norm: Tensor,
    shift: Tensor,
    eps: float,
    up: Tensor,
    up_bias: Tensor,
    down: Tensor,
    down_bias: Tensor,
    by_tanh: bool,
    rest: Tensor,
    with_rest: bool,
    *,
    by: Multiply = multiplied,
) -> tuple[Tensor, Tensor]:
    """``gelu(norm(x) @ up + up_bias) @ down + down_bias``.

    Args:
        up: `[E, F]`.
        up_bias: `[F]`.
        down: `[F, E]`.
        down_bias: `[E]`.
        by_tanh: Approximate GELU as PyTorch's ``approximate="tanh"`` does.
    """
    hidden = norm_product(x, norm, shift, eps, up, up_bias, by=by)
    feature = by(F.gelu(hidden, approximate="tanh" if by_tanh else "none"), down, down_bias)
    return _with_sums(x, feature, rest, with_rest)


def self_attention(
    x: Tensor,
    norm: Tensor,
    shift: Tensor,
    eps: float,
    inner: Tensor,
    inner_bias: Tensor,
    mask: Tensor,
    outer: Tensor,
    outer_bias: Tensor,
    heads: int,
    scale: float,
    rest: Tensor,
    with_rest: bool,
    *,
    by: Multiply = multiplied,
) -> tuple[Tensor, Tensor]:
    """``attend(norm(x) @ inner + inner_bias) @ outer + outer_bias``.

    Args:
        inner: Weight of queries, keys and values, head after head in each: `[E, 3 E]`.
        inner_bias: `[3 E]`.
        mask: Added to the scores, `[T, T]`; no row of it may be all -inf.
        outer: `[E, E]`.
        outer_bias: `[E]`.
        heads: Number of heads.
        scale: Factor of the scores.
    """
    rows = x.flatten(0, -2)
    packed = norm_product(rows, norm, shift, eps, inner, inner_bias, by=by)
    query, key, value = packed.view(len(rows), 3, heads, -1).permute(1, 2, 0, 3).unsqueeze(1)
    attended = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    feature = by(attended[0].transpose(0, 1).reshape(rows.shape), outer, outer_bias).view(x.shape)
    return _with_sums(x, feature, rest, with_rest)


def cross_attention(
    x: Tensor,
    norm: Tensor,
    shift: Tensor,
    eps: float,
    keys: Tensor,
    offset: Tensor,
    values: Tensor,
    bias: Tensor,
    heads: int,
    rest: Tensor,
    with_rest: bool,
) -> tuple[Tensor, Tensor]:
    """``softmax(norm(x) @ keys.T + offset) @ values + bias``, as `bac.plan.passes.absorb` writes a cross-attention.

    Args:
        keys: Factors of the keys, head after head: `[H * S, E]`.
        offset: Added to the scores, `[H * S]`, `[1, H * S]` or `[T, H * S]`.
        values: Factors of the values, `[H * S, E]`.
        bias: `[E]`.
        heads: Number of heads H; the shares of each sum to one.
    """
    rows = F.layer_norm(x, norm.shape, norm, shift, eps).flatten(0, -2)
    scores = torch.addmm(offset, rows, keys.t())
    shares = torch.softmax(scores.view(len(rows), heads, -1), 2).view(scores.shape)
    feature = torch.addmm(bias, shares, values).view(x.shape)
    return _with_sums(x, feature, rest, with_rest)


def _with_sums(x: Tensor, feature: Tensor, rest: Tensor, with_rest: bool) -> tuple[Tensor, Tensor]:
    total = feature + (rest.reshape(x.shape) if rest.numel() == x.numel() else rest)
    return total if with_rest else feature, x + total
