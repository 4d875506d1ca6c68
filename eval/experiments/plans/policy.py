"""A small policy with everything in it that has made a plan stale: adapters, private settings, in-place residuals."""

import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host


class Adapted(nn.Linear):
    """A linear layer with two adapters of rank 1, under the names that PEFT's LoRA layers use."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.lora_A = nn.ModuleDict({name: nn.Linear(width, 1, bias=False) for name in ("one", "two")})
        self.lora_B = nn.ModuleDict({name: nn.Linear(1, width, bias=False) for name in ("one", "two")})
        self.scaling = {"one": 1.0, "two": 0.5}
        self._active_adapter = ["one"]
        self._disable_adapters = False

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output plus those of the active adapters."""
        result = super().forward(x)
        for name in () if self._disable_adapters else self._active_adapter:
            result = result + self.scaling[name] * self.lora_B[name](self.lora_A[name](x))
        return result


class InPlaceLayer(nn.TransformerDecoderLayer):
    """PyTorch's layer, which adds its residuals in place here."""

    def forward(self, tgt: Tensor, memory: Tensor, *_: object, **__: object) -> Tensor:
        """Three branches."""
        h = self._sa_block(self.norm1(tgt), None, None)
        h += tgt
        h += self._mha_block(self.norm2(h), memory, None, None)
        g = self._ff_block(self.norm3(h))
        g += h
        return g


class SmallPolicy(nn.Module):
    """Four Euler steps with injected noise, two layers of width 12."""

    num_steps = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(InPlaceLayer(12, 3, 20, batch_first=True) for _ in range(2))
        self.embed, self.head, self.condition, self.adapted = (
            nn.Linear(2, 12), nn.Linear(12, 2), nn.Linear(3, 12), Adapted(12)
        )  # fmt: skip
        self.config = {"step": 0.1, "noise": [0.01]}
        self._gain = 1.0
        self.requires_grad_(False)  # PyTorch leaks the graphs of in-place residuals, with `bac` or without
        self.eval()

    def reset(self) -> None:
        """Do nothing: the policy has no state."""

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        """Observations `[B, 2, 3]` to actions `[B, 5, 2]`."""
        memory = self.adapted(self.condition(batch["obs"]))
        x = torch.randn(len(memory), 5, 2, dtype=memory.dtype)
        for _ in range(self.num_steps):
            h = self.embed(x)
            for layer in self.layers:
                h = layer(h, memory)
            x = x - self.config["step"] * self._gain * self.head(h) + self.config["noise"][0] * torch.randn_like(x)
        return x


def schedule(policy: nn.Module, *steps: int) -> bac.Schedule:
    """The same update steps for every block."""
    return bac.Schedule(SmallPolicy.num_steps, dict.fromkeys((b.name for b in find_host(policy).blocks), steps))
