"""An operator call on the tape: PyTorch's declarations about the operator, and the encoded arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._C import DispatchKey

from bac.plan.program import Meta, references

aten = torch.ops.aten

# They return another handle on the same values, which the tape treats as the same value.
_SAME = {aten.detach.default, aten.detach_.default, aten.alias.default, aten.lift_fresh.default}

# They hand values to Python: `tolist`, `numpy`.
_READS = {aten.resolve_conj.default, aten.resolve_neg.default}

# The shapes of their results depend on values too, but PyTorch does not tag them so.
_SHAPES = {
    aten.nonzero_numpy.default,
    aten.repeat_interleave.self_Tensor,
    aten.tensor_split.tensor_indices_or_sections,
    aten.where.default,
}

# Of these, the shape depends on one argument alone: the mask, or the counts.
_COUNTS = {aten.repeat_interleave.self_Tensor, aten.tensor_split.tensor_indices_or_sections}
_MASKS = {aten.index.Tensor, aten.masked_select.default}
_MASK_DTYPES = (torch.bool, torch.uint8)  # an index of whole numbers has the shape that the result will have

# They take nothing but shape, dtype and device from this argument.
_TEMPLATES = {
    **dict.fromkeys((aten.expand_as.default, aten.reshape_as.default, aten.type_as.default, aten.view_as.default), 1),
    **dict.fromkeys((aten.empty_like.default, aten.full_like.default, aten.ones_like.default), 0),
    **dict.fromkeys((aten.zeros_like.default, aten.rand_like.default, aten.randn_like.default), 0),
    **dict.fromkeys((aten.new_empty.default, aten.new_full.default, aten.new_ones.default, aten.new_zeros.default), 0),
    aten.to.other: 1,
}

# An operator with one of these arguments draws only if the argument is true or positive.
_DROPOUT = ("dropout_p", "train")


# Arguments of these types need no encoding.
LITERALS = {int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout}


@dataclass(frozen=True, slots=True)
class Kind:
    """PyTorch's declarations about an operator. Cached: a tape calls the same few operators tens of thousands of times.

    Attributes:
        same: The operator returns another handle on its argument.
        writes: It writes into an argument.
        reads: It hands values to Python.
        shapes: The result's shape depends on values.
        random: It may draw.
        fresh: Its results never share memory with an argument. False for composite operators, whose declarations are
            unreliable here.
    """

    same: bool
    writes: bool
    reads: bool
    shapes: bool
    random: bool
    fresh: bool

    @classmethod
    @cache
    def of(cls, func: Any) -> Kind:
        """The declarations of an ATen overload."""
        returns = func._schema.returns
        composite = func.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)
        return cls(
            same=func in _SAME,
            writes=func._schema.is_mutable,
            reads=func in _READS or not all("Tensor" in str(part.type) for part in returns),
            shapes=torch.Tag.dynamic_output_shape in func.tags or func in _SHAPES,
            random=torch.Tag.nondeterministic_seeded in func.tags,
            fresh=not composite and all(part.alias_info is None for part in returns),
        )


class Call:
    """An operator and its encoded arguments, before its results are known."""

    __slots__ = ("args", "inputs", "kind", "operator", "options")

    def __init__(self, operator: Any, kind: Kind, args: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> None:
        self.operator = operator
        self.kind = kind
        self.args = args
        self.options = options
        self.inputs = references((args, options) if options else args)

    @classmethod
    def of(cls, operator: Any, *args: Any) -> Call:
        """A call that the tape adds itself, with encoded arguments."""
        return cls(operator, Kind.of(operator), args, ())

    def deciding(self, meta: Mapping[int, Meta]) -> Iterator[int]:
        """Values that Python gets to know by the call: read ones, and those that decide the shape of a result.

        Args:
            meta: Layout of the values.
        """
        if self.kind.reads:
            yield from self.inputs
        elif self.operator in _MASKS:
            masks = references(self.args[1:])
            yield from (value for value in masks if meta[value].dtype in _MASK_DTYPES)
        elif self.kind.shapes:
            yield from references(self.args[1:]) if self.operator in _COUNTS else self.inputs

    @property
    def numbers(self) -> tuple[int, ...]:
        """Values whose numbers the results depend on; of the others nothing but the layout matters."""
        template = _TEMPLATES.get(self.operator)
        if template is None:
            return self.inputs
        return references((self.args[:template], self.args[template + 1 :], self.options))

    @property
    def draws(self) -> bool:
        """Whether the arguments tell a random operator to draw."""
        named = dict(zip((given.name for given in self.operator._schema.arguments), self.args, strict=False))
        named.update(self.options)
        switches = [given.name for given in self.operator._schema.arguments if given.name in _DROPOUT]
        return not switches or any(named.get(name, False) for name in switches)
