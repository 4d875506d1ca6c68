"""The fastest way from Python to an ATen operator.

A call of an overload object of ``torch.ops`` takes 2 to 4 us; PyTorch's own function for the same operator takes
0.7 us. Operators that are not listed are called as overloads, which is always correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

aten = torch.ops.aten

DIRECT: Mapping[Any, Callable[..., Any]] = {
    aten.add.Tensor: torch.add,
    aten.addcmul.default: torch.addcmul,
    aten.addmm.default: torch.addmm,
    aten.as_strided.default: Tensor.as_strided,
    aten.baddbmm.default: torch.baddbmm,
    aten.bmm.default: torch.bmm,
    aten.cat.default: torch.cat,
    aten.clamp.default: torch.clamp,
    aten.clone.default: torch.clone,
    aten.contiguous.default: Tensor.contiguous,
    aten.div.Tensor: torch.div,
    aten.expand.default: Tensor.expand,
    aten.gelu.default: F.gelu,
    aten.layer_norm.default: torch.layer_norm,
    aten.linear.default: F.linear,
    aten.matmul.default: torch.matmul,
    aten.mm.default: torch.mm,
    aten.mul.Tensor: torch.mul,
    aten.permute.default: Tensor.permute,
    aten.randn.default: torch.randn,
    aten.randn.generator: torch.randn,
    aten.relu.default: torch.relu,
    aten.reshape.default: Tensor.reshape,
    aten.scaled_dot_product_attention.default: F.scaled_dot_product_attention,
    aten.select.int: Tensor.select,
    aten.silu.default: torch._C._nn.silu,
    aten.softmax.int: torch.softmax,
    aten.sub.Tensor: torch.sub,
    aten.transpose.int: Tensor.transpose,
    aten.unsqueeze.default: Tensor.unsqueeze,
    aten.view.default: Tensor.view,
}

# In-place forms, which compute the same numbers into the first argument.
IN_PLACE: Mapping[Any, Callable[..., Any]] = {
    aten.add.Tensor: Tensor.add_,
    aten.clamp.default: Tensor.clamp_,
    aten.div.Tensor: Tensor.div_,
    aten.mul.Tensor: Tensor.mul_,
    aten.sub.Tensor: Tensor.sub_,
}
