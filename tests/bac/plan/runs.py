"""Denoising runs on tape, and arithmetic to check them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import bac
from bac.plan.program import Program
from bac.plan.returned import tensors_in
from bac.plan.tape import Tape
from tests.bac.models import TinyTransformerPolicy, obs, sweep

STEPS = 7
FIRST = bac.Replay(record="first")


def taped(function: Callable[..., Any], *leaves: Any, constants: Sequence[Tensor] = ()) -> Program:
    """The program of one call."""
    with torch.inference_mode():
        with Tape(leaves, constants) as tape:
            output = function(*leaves)
        return tape.program(list(tensors_in(output)))


def names(program: Program) -> list[str]:
    """Operators in order."""
    return [instruction.name for instruction in program.instructions]


class Counting(TorchDispatchMode):
    """Counts dispatched operators: by name, and those that do not merely return a view."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, int] = {}
        self.num_operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.by_name[func.__name__.partition(".")[0]] = self.by_name.get(func.__name__.partition(".")[0], 0) + 1
        memory = {t.untyped_storage()._cdata for t in args if isinstance(t, Tensor)}
        view = isinstance(result, Tensor) and result.untyped_storage()._cdata in memory
        self.num_operations += not view or func._schema.is_mutable
        return result


class NoisyPolicy(nn.Module):
    """``x = weight * x + obs + noise``, `num_steps` times; the simplest run with everything in it."""

    def __init__(self, num_steps: int = 3) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.layer = nn.TransformerDecoderLayer(4, 1, 5, batch_first=True)
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor], generator: Any = None) -> Tensor:
        obs = batch["obs"]
        x = torch.randn(obs.shape, generator=generator)
        for _ in range(self.num_steps):
            x = self.layer(self.weight * x, obs) + torch.randn(obs.shape, generator=generator)
        return x


def predict(policy: nn.Module, batch_size: int = 2, seed: int = 0, **options: Any) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return policy.predict_action_chunk(obs(batch_size, seed), **options)


def pair(
    steps: tuple[int, ...] = (0, 3), *, num_layers: int = 1, replay: bac.Replay = FIRST
) -> list[TinyTransformerPolicy]:
    """The same policy twice, interpreted and replayed."""
    made = []
    for how in (False, replay):
        torch.manual_seed(1)
        policy = TinyTransformerPolicy(num_steps=STEPS, num_layers=num_layers)
        made.append(bac.wrap(policy, sweep(policy, steps, STEPS), replay=how))
    return made


def numbers(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    """Normal numbers that depend on the shape and the seed alone."""
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
