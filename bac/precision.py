"""The precision in which a chunk is computed, where the policy left weights in float32.

Many policies load most of their network in bfloat16 and leave the rest in float32: pi0's vision tower is 26 of the 43
ms that run once per chunk on an H200. Another precision makes that part faster and rounds its numbers more coarsely, so
it is never lossless and never chosen by itself.

``"tf32"`` lets NVIDIA's tensor cores round the factors of float32 products to 10 bits of mantissa. ``"bf16"`` computes
products of float32 tensors in bfloat16, as `torch.autocast` does. Both hold during a chunk only: before and after it,
PyTorch's settings are the caller's. Those of tf32 belong to the whole process, so another thread that multiplies at the
same time may use it too; those of bf16 belong to the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from bac.caching.interceptors.patch import Interceptor
from bac.errors import ScheduleError

AS_LOADED, TF32, BF16 = "as loaded", "tf32", "bf16"
PRECISIONS = (AS_LOADED, TF32, BF16)
_BACKENDS = (("cuda", "matmul"), ("cuda", "conv"), ("mkldnn", "matmul"))


def check_precision(precision: object) -> None:
    """Check the name of a precision.

    Raises:
        ScheduleError: There is no such precision.
    """
    if precision not in PRECISIONS:
        allowed = ", ".join(f'"{name}"' for name in PRECISIONS)
        raise ScheduleError(f"precision: must be one of {allowed}, got {precision!r}")


def check_precision_on(module: torch.nn.Module, precision: str) -> None:
    """Check that a precision changes something on a policy's network.

    Raises:
        ScheduleError: No weights are in float32; or tf32 is asked for without an NVIDIA GPU.
    """
    if precision == AS_LOADED:
        return
    weights = [parameter for parameter in module.parameters() if parameter.dtype == torch.float32]
    name = type(module).__name__
    if not weights:
        raise ScheduleError(
            f'precision: "{precision}" is for parts left in float32, and {name} has none; leave precision out'
        )
    device = weights[0].device.type
    if precision == TF32 and device != "cuda":
        raise ScheduleError(
            f'precision: "{TF32}" needs an NVIDIA GPU, and {name} is on {device!r}; move it there, or take "{BF16}"'
        )


def computing_in(precision: str, device: str) -> AbstractContextManager[Any]:
    """Within the context, float32 products are computed in a precision.

    Args:
        precision: One of `PRECISIONS`.
        device: Type of the device, such as ``cuda``.
    """
    if precision == BF16:
        return torch.autocast(device, torch.bfloat16)
    return _tf32() if precision == TF32 else nullcontext()


class InPrecision(Interceptor):
    """Computes one call of the sampler in another precision.

    Args:
        precision: ``tf32`` or ``bf16``.
        device: Type of the device.
    """

    role = "precision"

    def __init__(self, precision: str, device: str) -> None:
        self.precision = precision
        self.device = device

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        with computing_in(self.precision, self.device):
            return self.original(*inputs, **options)

    def __str__(self) -> str:
        return f"computes products of float32 numbers in {self.precision}"


@contextmanager
def _tf32() -> Iterator[None]:
    """Allow TF32, and put PyTorch's switches back exactly.

    PyTorch has an older and a newer set of them. The older ones write the newer too, but coarsely, so the newer are put
    back after them. Where the caller wrote the newer alone, PyTorch refuses to read the older, which then stay.
    """
    older, newer = _older(), _newer()
    try:
        if older:
            torch._C._set_float32_matmul_precision("high")
            torch._C._set_cudnn_allow_tf32(True)
        else:
            for backend, kind in _BACKENDS[:2]:
                torch._C._set_fp32_precision_setter(backend, kind, "tf32")
        yield
    finally:
        for put_back in (*older, *newer):
            put_back()


def _older() -> list[Callable[[], Any]]:
    """How to put back the older switches as they are now; empty if PyTorch refuses to read them."""
    try:
        matmul, conv = torch._C._get_float32_matmul_precision(), torch._C._get_cudnn_allow_tf32()
    except RuntimeError:
        return []
    return [lambda: torch._C._set_float32_matmul_precision(matmul), lambda: torch._C._set_cudnn_allow_tf32(conv)]


def _newer() -> list[Callable[[], Any]]:
    """How to put back the newer switches as they are now; empty before PyTorch 2.9, which has none."""
    read = getattr(torch._C, "_get_fp32_precision_getter", None)
    if read is None:
        return []

    def put_back(backend: str, kind: str, value: str) -> Callable[[], Any]:
        return lambda: torch._C._set_fp32_precision_setter(backend, kind, value)

    return [put_back(*which, read(*which)) for which in _BACKENDS]
