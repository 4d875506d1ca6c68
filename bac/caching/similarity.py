"""Similarity of a block's outputs at different denoising steps. Pure functions of features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]


def cosine_similarity(features: Any) -> Array:
    """Cosine similarity of a block's flattened outputs at every two denoising steps.

    Two zero outputs have similarity 1; a zero and a non-zero output have 0.

    Args:
        features: Outputs at each step, `[K, D]` or `[K, ...]` (flattened); tensor or array.

    Returns:
        Similarity matrix, `[K, K]` float64, symmetric, ones on the diagonal, in [-1, 1].

    Raises:
        ValueError: `features` has no steps or holds NaN or infinity.
    """
    return np.asarray(batched_cosine_similarity(_as_steps(features)[:, None])[0].numpy())


def caching_error(features: Any) -> float:
    """Mean L1 distance between a block's outputs at two denoising steps: BUA's measure of fragility.

    The mean, over all pairs of steps i < j, of the mean of ``|f_i - f_j|`` over elements. Bubbling Union Algorithm,
    stage 1, Ji et al. (arXiv 2506.13456).

    Args:
        features: Outputs at each step, `[K, ...]`; tensor or array.

    Returns:
        The error, >= 0, in units of the features; 0 for a single step.

    Raises:
        ValueError: `features` has no steps or holds NaN or infinity.
    """
    return float(batched_caching_error(_as_steps(features)[:, None])[0])


def batched_cosine_similarity(features: torch.Tensor) -> torch.Tensor:
    """`cosine_similarity` of every sample: `[K, B, D]` to `[B, K, K]` float64."""
    vectors = features.double().movedim(1, 0)
    norms = vectors.norm(dim=-1, keepdim=True)
    units = vectors / torch.where(norms == 0, 1.0, norms)
    similarity = (units @ units.mT).clamp(-1.0, 1.0)  # rounding may leave the range and, below, the symmetry
    zero = norms.squeeze(-1) == 0
    similarity = torch.where(zero[:, :, None] & zero[:, None, :], 1.0, (similarity + similarity.mT) / 2)
    similarity.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return similarity


def batched_caching_error(features: torch.Tensor) -> torch.Tensor:
    """`caching_error` of every sample: `[K, B, D]` to `[B]` float64.

    The sum of ``|x_i - x_j|`` over pairs follows from the order statistics: the r-th smallest of K values is added
    r times and subtracted K - 1 - r times, so K log K work replaces K^2.
    """
    num_steps = features.shape[0]
    if num_steps == 1:
        return torch.zeros(features.shape[1], dtype=torch.float64)
    weights = 2.0 * torch.arange(num_steps, dtype=torch.float64, device=features.device) - (num_steps - 1)
    ordered = features.double().sort(dim=0).values
    pair_sums = torch.tensordot(weights, ordered, dims=1)
    num_pairs = num_steps * (num_steps - 1) / 2
    return torch.as_tensor(pair_sums.mean(dim=-1) / num_pairs)


def batched_gram(features: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    """Mean products of a block's outputs at every two steps: `[K, B, D]` to `[B, K, K]` float64.

    They give the mean-square error of every estimate that is a weighted sum of stored outputs.

    Args:
        similarity: `batched_cosine_similarity` of the same features; passing it saves the work.
    """
    norms = features.double().movedim(1, 0).norm(dim=-1)
    gram: torch.Tensor = similarity * norms[:, :, None] * norms[:, None, :] / features.shape[-1]
    return gram


def batched_relative_change(features: torch.Tensor, max_lag: int) -> torch.Tensor:
    """Relative L1 change over 0..`max_lag` steps: `[K, B, D]` to `[B, K, max_lag + 1]` float64.

    Entry ``[b, t, k]`` is ``|f_t - f_(t-k)|_1 / |f_t|_1`` (Block Caching's L1rel for k = 1; SmoothCache's for all k).
    It is infinite where t < k, and where the output became zero.
    """
    num_steps, num_samples = features.shape[:2]
    sums = features.abs().sum(dim=-1, dtype=torch.float64)
    change = torch.full((num_samples, num_steps, max_lag + 1), torch.inf, dtype=torch.float64)
    for lag in range(min(max_lag + 1, num_steps)):
        moved = (features[lag:] - features[: num_steps - lag]).abs().sum(dim=-1, dtype=torch.float64)
        ratio = torch.where(moved == 0, 0.0, moved / sums[lag:])
        change[:, lag:, lag] = ratio.T.cpu()
    return change


def _as_steps(features: Any) -> torch.Tensor:
    tensor = torch.as_tensor(features).detach().cpu().double()
    if tensor.ndim < 1 or tensor.shape[0] == 0 or tensor.numel() == 0:
        raise ValueError(f"features: need at least one step and one element, got shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise ValueError("features: must be finite, got NaN or infinity")
    return tensor.reshape(tensor.shape[0], -1)
