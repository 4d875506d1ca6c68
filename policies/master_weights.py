"""Train in bfloat16 with float32 master weights.

bfloat16 has 8 bits of mantissa, so it loses an update of less than 1/256 of a weight, and late in training all updates
are that small. So a float32 copy, the master, takes the updates. The working weights, which forward and backward use,
are the master rounded to bfloat16 after every update (Micikevicius et al., "Mixed Precision Training", 2018).
"""

import torch
from torch import nn


class MasterWeights:
    """The float32 originals of a module's parameters, in the module's order.

    Args:
        module: Module with float32 parameters. Its parameters and floating-point buffers become `dtype`.
        dtype: Dtype of the working weights.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        self._working = dict(module.named_parameters())
        self.parameters = {name: nn.Parameter(p.detach().clone()) for name, p in self._working.items()}
        module.to(dtype)

    def take_gradients(self) -> None:
        """Move the working weights' gradients to the masters, as float32."""
        for name, working in self._working.items():
            self.parameters[name].grad = None if working.grad is None else working.grad.float()
            working.grad = None

    @torch.no_grad()
    def round_to_working(self) -> None:
        """Copy the master weights, rounded, over the working weights."""
        for name, working in self._working.items():
            working.copy_(self.parameters[name])

    def groups(self, groups: list[dict]) -> list[dict]:
        """The same optimizer groups, with each working parameter replaced by its master."""
        masters = {id(working): self.parameters[name] for name, working in self._working.items()}
        return [{**group, "params": [masters[id(p)] for p in group["params"]]} for group in groups]
