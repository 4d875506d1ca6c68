"""An operator call on the tape: PyTorch's declarations about the operator, and the encoded arguments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._C import DispatchKey

from bac.plan.program import references

aten = torch.ops.aten

# They return another handle on the same values, which the tape treats as the same value.
_SAME = {aten.detach.default, aten.detach_.default, aten.alias.default, aten.lift_fresh.default}

# They hand values to Python: `tolist`, `numpy`.
_READS = {aten.resolve_conj.default, aten.resolve_neg.default}

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
            shapes=torch.Tag.dynamic_output_shape in func.tags,
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

    @property
    def draws(self) -> bool:
        """Whether the arguments tell a random operator to draw."""
        named = dict(zip((given.name for given in self.operator._schema.arguments), self.args, strict=False))
        named.update(self.options)
        switches = [given.name for given in self.operator._schema.arguments if given.name in _DROPOUT]
        return not switches or any(named.get(name, False) for name in switches)
