"""What a sampler returns: one tensor, or tensors among other things in dictionaries and tuples."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.plan.call import LITERALS
from bac.plan.refusal import Refusal
from bac.plan.signature import flatten, replace_leaves


@dataclass(frozen=True)
class Computed:
    """Stands for a tensor that the program computes.

    Attributes:
        place: Its position among the program's outputs.
    """

    place: int


@dataclass(frozen=True)
class Given:
    """Stands for an argument that the sampler hands back.

    Attributes:
        place: Its position among the flattened arguments.
    """

    place: int


@dataclass(frozen=True, eq=False)
class Returned:
    """The value that a sampler returns, without the tensors.

    Attributes:
        outline: Tuples, lists and mappings as returned, with `Computed`, `Given` or a literal for every leaf.
    """

    outline: Any

    @classmethod
    def of(cls, output: Any, leaves: Sequence[Any]) -> Returned:
        """Outline what a sampler returned for these arguments.

        Raises:
            Refusal: It holds something that a plan cannot make again, or no tensor.
        """
        given = {id(leaf): place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
        places = iter(range(len(flatten(output)[0])))

        def outlined(leaf: Any) -> Any:
            if id(leaf) in given:
                return Given(given[id(leaf)])
            if isinstance(leaf, Tensor):
                return Computed(next(places))
            if type(leaf) in LITERALS:
                return leaf
            raise Refusal(f"the sampler returns {type(leaf).__name__}, which a plan cannot make")

        made = cls(replace_leaves(output, outlined))
        if not any(isinstance(leaf, Computed) for leaf in flatten(made.outline)[0]):
            raise Refusal(f"the sampler returns {type(output).__name__} without a tensor of its own")
        return made

    @property
    def key(self) -> Hashable:
        """Equal for two runs that return the same but for the numbers in tensors."""
        leaves, structure = flatten(self.outline)
        return structure, tuple((type(leaf), repr(leaf)) for leaf in leaves)

    def computed(self, output: Any) -> list[Tensor]:
        """The tensors in a sampler's output that the program has to compute, in order."""
        pairs = zip(flatten(self.outline)[0], flatten(output)[0], strict=True)
        return [tensor for leaf, tensor in pairs if isinstance(leaf, Computed)]

    def fill(self, tensors: Sequence[Tensor], leaves: Sequence[Any]) -> Any:
        """The sampler's output for the program's outputs and the arguments."""
        if isinstance(self.outline, Computed):
            return tensors[0]

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Computed):
                return tensors[leaf.place]
            return leaves[leaf.place] if isinstance(leaf, Given) else leaf

        return replace_leaves(self.outline, filled)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Tensors in a sampler's output, in order."""
    return (leaf for leaf in flatten(output)[0] if isinstance(leaf, Tensor))


def to_caller(output: Any) -> Any:
    """Turn a plan's inference tensors into ordinary ones for a caller outside inference mode."""
    return output if torch.is_inference_mode_enabled() else replace_leaves(output, _ordinary)


def same(one: Any, other: Any) -> bool:
    """Whether two outputs hold equal tensors, and the same beside them."""
    (first, structure), (second, other_structure) = flatten(one), flatten(other)
    return structure == other_structure and all(map(_same_leaf, first, second))


def distance(expected: Any, found: Any) -> float:
    """Largest difference between the tensors of two outputs, relative to the largest number of each; 0 if equal.

    Infinite if they are not of one kind, or numbers differ that do not round.
    """
    (first, structure), (second, other_structure) = flatten(expected), flatten(found)
    if structure != other_structure:
        return float("inf")
    return max(map(_distance, first, second), default=0.0)


def _ordinary(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        kinds = ((tensor.shape, tensor.dtype, tensor.device) for tensor in (one, other))
        return len(set(kinds)) == 1 and torch.equal(one, other)
    return type(one) is type(other) and repr(one) == repr(other)


def _distance(expected: Any, found: Any) -> float:
    if _same_leaf(expected, found):
        return 0.0
    if not (isinstance(expected, Tensor) and isinstance(found, Tensor) and expected.shape == found.shape):
        return float("inf")
    if not expected.is_floating_point():
        return float("inf")
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return error if error == error else float("inf")  # NaN would be lost in a maximum
