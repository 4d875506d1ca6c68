"""PyTorch's global settings that change numbers. A plan holds under those it was recorded under."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial

import torch

from bac.plan.surroundings import AUTOCAST_DEVICES

_PRECISIONS = tuple((device, kind) for device in ("cuda", "mkldnn") for kind in ("matmul", "conv", "rnn"))
_SWITCHES = (
    "_get_deterministic_algorithms", "_get_deterministic_algorithms_warn_only", "_get_default_device",
    "_get_cublas_allow_fp16_reduced_precision_reduction", "_get_cublas_allow_bf16_reduced_precision_reduction",
    "_get_cublas_allow_fp16_accumulation", "_get_cpu_allow_fp16_reduced_precision_reduction",
    "_get_flash_sdp_enabled", "_get_mem_efficient_sdp_enabled", "_get_math_sdp_enabled", "_get_cudnn_sdp_enabled",
    "_get_overrideable_sdp_enabled", "_get_fa3_sdp_enabled", "_get_math_sdp_allow_fp16_bf16_reduction",
    "_get_mkldnn_enabled", "_get_nnpack_enabled", "_get_cudnn_enabled", "_get_cudnn_deterministic",
)  # fmt: skip
_OLD_PRECISIONS = ("_get_float32_matmul_precision", "_get_cublas_allow_tf32", "_get_cudnn_allow_tf32")


def settings() -> Hashable:
    """The settings now. To read them takes some 5 us."""
    autocast = [(torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in AUTOCAST_DEVICES]
    return (torch.get_default_dtype(), torch.get_num_threads(), *autocast, *[read() for read in _READERS])


def _readers() -> tuple[Callable[[], Hashable], ...]:
    """Fast ways to read the switches that this version of PyTorch has; ``torch.backends`` wraps the same ones."""
    precision = getattr(torch._C, "_get_fp32_precision_getter", None)  # since PyTorch 2.9
    switches = [getattr(torch._C, name) for name in _SWITCHES if hasattr(torch._C, name)]
    old = [partial(_or_none, getattr(torch._C, name)) for name in _OLD_PRECISIONS]
    new = [] if precision is None else [partial(precision, *which) for which in _PRECISIONS]
    return (*switches, *old, *new, torch.backends.mha.get_fastpath_enabled)


def _or_none(read: Callable[[], Hashable]) -> Hashable:
    """The older switch; None where PyTorch refuses it because the newer one was set."""
    try:
        return read()
    except RuntimeError:
        return None


_READERS = _readers()
