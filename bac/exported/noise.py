"""Makes the random draws that an export takes as input."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bac.exported.ports import Noise

Array = npt.NDArray[Any]


def drawn(noise: Sequence[Noise], generator: Any = None) -> list[Array]:
    """All draws of one run, in the order in which the policy makes them.

    Args:
        noise: The card's.
        generator: A `torch.Generator`: the draws are then those that the policy itself makes from it. A
            `numpy.random.Generator`: numbers of the same distribution. None takes PyTorch's default generator if
            PyTorch is loaded, and NumPy with a fresh seed otherwise.
    """
    if generator is None and sys.modules.get("torch") is None:
        generator = np.random.default_rng()
    if isinstance(generator, np.random.Generator):
        return [_from_numpy(one, generator) for one in noise]
    return [_from_torch(one, generator) for one in noise]


def _from_numpy(one: Noise, generator: np.random.Generator) -> Array:
    draw = generator.standard_normal if one.distribution == "normal" else generator.random
    return draw(one.shape, dtype=np.float32).astype(one.dtype)


def _from_torch(one: Noise, generator: Any) -> Array:
    torch: Any = importlib.import_module("torch")
    draw = torch.randn if one.distribution == "normal" else torch.rand
    # Draw by draw: PyTorch makes other numbers for a large shape than for the same amount in small ones.
    dtype, shape = getattr(torch, one.dtype), one.shape[1:]
    device = "cpu" if generator is None else generator.device
    return np.stack([
        draw(shape, generator=generator, dtype=dtype, device=device).cpu().numpy() for _ in range(one.shape[0])
    ])  # fmt: skip
