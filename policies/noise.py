"""Where a denoising run begins, drawn from one generator or from one for each row."""

from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

Generators = torch.Generator | list[torch.Generator]


def starting_noise(config: Any, batch_size: int, like: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise, `[B, T, Da]`, of the device and dtype of another tensor.

    Args:
        config: Configuration of the policy; its `horizon` is T, its `action_feature` has Da.
        batch_size: Rows B.
        like: Any tensor of the policy.
        generator: One for all rows, or B of them.
    """
    size = batch_size, config.horizon, config.action_feature.shape[0]
    return randn_tensor(size, generator=generator, device=like.device, dtype=like.dtype)
