import pytest
import torch

from eval.experiments.latency.kernels import KernelLoad, kernel_load


def test_the_launch_bound_share_is_the_time_without_a_kernel():
    assert KernelLoad(10, 2.0).launch_bound(8.0) == 0.75
    assert KernelLoad(10, 9.0).launch_bound(8.0) == 0.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so():
    with pytest.raises(RuntimeError, match="operator counts"):
        kernel_load(lambda: None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_are_counted():
    x = torch.ones(1000, device="cuda")
    load = kernel_load(lambda: (x + 1, x * 2))
    assert load.num_kernels == 2
    assert load.busy_ms > 0
