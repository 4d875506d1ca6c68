"""States of random generators: a run can be repeated on the same draws, and leaves no trace."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Generator, Tensor


class RandomState:
    """The current state of PyTorch's own generators and of those among some arguments.

    Args:
        leaves: Arguments of a run; the devices of its tensors are those it may draw on.
    """

    def __init__(self, leaves: Sequence[Any]) -> None:
        generators = [leaf for leaf in leaves if isinstance(leaf, Generator)]
        devices = {leaf.device for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == "cuda"}
        self._own = [(generator, generator.get_state()) for generator in generators]
        self._cpu = torch.get_rng_state()
        self._cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]

    def restore(self) -> None:
        """Set the generators back to this state."""
        for generator, state in self._own:
            generator.set_state(state)
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda:
            torch.cuda.set_rng_state(state, device)


def other_numbers(leaves: Sequence[Any], seed: int = 0, *, whole: Collection[int] = ()) -> list[Any]:
    """Arguments that differ from `leaves` in nothing but numbers: noise added to tensors, generators seeded anew.

    Leaves that are the same object stay the same object.

    Args:
        leaves: Arguments, flattened.
        seed: Seeds the numbers.
        whole: Positions of tensors of whole numbers or truth values that change, too. Each has numbers that were in it:
            words in another order, a picture with some twice, a mask with more or fewer that are true.
    """
    source = Generator().manual_seed(seed)
    made: dict[int, Any] = {}
    return [
        made.setdefault(id(leaf), _other(leaf, source, seed + place, place in whole))
        for place, leaf in enumerate(leaves)
    ]


def whole_numbers(leaves: Sequence[Any]) -> set[int]:
    """Positions of the tensors of whole numbers or truth values, as far as they can be other ones."""
    return {
        place
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor)
        and leaf.layout == torch.strided
        and leaf.numel() > 1
        and not (leaf.is_floating_point() or leaf.is_complex())
    }


def _other(leaf: Any, source: Generator, seed: int, changes: bool) -> Any:
    if changes:
        return torch.empty_like(leaf).copy_(_shuffled(leaf.reshape(-1), source).reshape(leaf.shape))
    if isinstance(leaf, Generator):
        return Generator(leaf.device).manual_seed(seed)
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        noise = torch.randn(leaf.shape, generator=source, dtype=torch.float32)
        changed = torch.empty_like(leaf)  # keeps the strides, which a plan depends on
        return changed.copy_(leaf + 0.1 * noise.to(leaf.device, leaf.dtype))
    return leaf


def _shuffled(values: Tensor, source: Generator) -> Tensor:
    count = len(values)
    if values.dtype not in (torch.bool, torch.uint8):  # words, places, sizes: some may have to differ
        return values[torch.randperm(count, generator=source).to(values.device)]
    drawn = values[torch.randint(count, (count,), generator=source).to(values.device)]
    if values.dtype is torch.bool and drawn.sum() == values.sum():
        drawn[0] = ~drawn[0]
    return drawn
