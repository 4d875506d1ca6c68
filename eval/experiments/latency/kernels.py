"""The share of a chunk's latency that a GPU spends in kernels; the rest it waits for the next launch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class KernelLoad:
    """The kernels of one call on a GPU.

    Attributes:
        num_kernels: Number of kernels, copies and fills that ran.
        busy_ms: Sum of their times [ms].
    """

    num_kernels: int
    busy_ms: float

    def launch_bound(self, latency_ms: float) -> float:
        """Share of `latency_ms` in which no kernel ran, in [0, 1]: the cost of launches, not of arithmetic."""
        return max(0.0, 1 - self.busy_ms / latency_ms)


def kernel_load(call: Callable[[], object]) -> KernelLoad:
    """Profile one call.

    Raises:
        RuntimeError: There is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("kernel_load: needs a CUDA device, found none. On a CPU compare operator counts instead")
    # Without `acc_events` the profiler warns that it forgets events at the end of a cycle.
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        call()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return KernelLoad(len(kernels), sum(event.device_time for event in kernels) / 1e3)
