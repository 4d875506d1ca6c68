"""Adds to a matrix product in the operator that makes it.

``addmm`` adds one matrix to a product. A residual stream adds two things, the stream and the product's bias::

    h + (act(u) W' + b)     ->  addmm(h, act(u*), W*')     u* has one more unit, with act(unit) = 1 and b as its weights
    x - s (norm(h) W' + b)  ->  addmm(x, norm*(h), W', alpha=-s)     norm* has a shift with (shift W') = b
    c + (x W' + b)          ->  addmm(c + b, x, W')        c is a constant

A bias without such a place is left alone, and so is a product that is stored for other steps. An addition costs as much
as any small kernel, which on a GPU is all that counts.

Re-associates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.plan.passes.emit import Emitter, is_projection, origin, producers_of
from bac.plan.program import Instruction, Meta, Program, Ref

aten = torch.ops.aten

_ACTIVATIONS = (aten.gelu.default, aten.mish.default, aten.relu.default, aten.silu.default)
_UNITS = 16  # added to a hidden layer, so that rows stay aligned; one of them carries the bias
_MIN_ROWS = 4  # fewer rows are matrix-vector products, which read a weight as it lies
_LARGEST_SHIFT = 10.0  # a larger one would drown the norm's numbers in its rounding


@dataclass(frozen=True, eq=False)
class Joined:
    """An addition with the product that goes into it.

    Attributes:
        total: The addition or subtraction.
        kept: The other addend.
        product: The product.
        factor: Factor of the product.
    """

    total: Instruction
    kept: int
    product: Instruction
    factor: float


def add_in_products(program: Program) -> Program:
    """Rewrite the additions whose product has room for its bias."""
    finder = _Finder(program)
    sites = {i.outputs[0]: site for i in program.instructions if (site := finder.find(i)) is not None}
    writer = _Writer(program)
    return writer.emitter.rewrite(sites, writer.write)


class _Finder:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.producers = producers_of(program)

    def find(self, total: Instruction) -> Joined | None:
        """The site that ends in this addition; None if there is none."""
        if total.operator not in (aten.add.Tensor, aten.sub.Tensor) or len(total.inputs) != 2:
            return None
        if {name for name, _ in total.options} - {"alpha"}:
            return None
        alpha = float(dict(total.options).get("alpha", 1.0))
        left, right = total.inputs
        subtracts = total.operator == aten.sub.Tensor
        orders = [(left, right, -alpha if subtracts else alpha)]
        orders += [(right, left, 1.0)] if not subtracts and alpha == 1 else []
        for kept, added, factor in orders:
            product = self._product(added, total.outputs[0])
            if product is not None and self._fits(kept, total.outputs[0]):
                site = Joined(total, kept, product, factor)
                if _place_of_bias(self.program, self.producers, site) is not None:
                    return site
        return None

    def _fits(self, kept: int, total: int) -> bool:
        meta = self.program.meta
        if kept in self.program.constants:
            return meta[kept].dtype == meta[total].dtype
        same = (meta[kept].shape, meta[kept].dtype) == (meta[total].shape, meta[total].dtype)
        return same and is_dense(meta[kept])

    def _product(self, value: int, total: int) -> Instruction | None:
        """The product that makes a value row by row, if nothing else reads it."""
        meta, uses = self.program.meta, self.program.num_uses
        end = value
        while (step := self.producers.get(end)) is not None and uses[end] == 1:
            if step.operator == aten.linear.default:
                break
            if not self.program.is_view(step) or len(step.inputs) != 1:
                return None
            end = step.inputs[0]
        if step is None or step.operator != aten.linear.default or uses[end] != 1:
            return None
        if not (meta[total].dtype.is_floating_point and meta[total].dtype == meta[end].dtype and is_dense(meta[total])):
            return None
        if meta[total].shape[-1:] != meta[end].shape[-1:] or meta[total].shape != meta[value].shape:
            return None
        if not is_dense(meta[step.inputs[0]]) or len(meta[step.inputs[1]].shape) != 2:
            return None
        found, places = origin(self.program, self.producers, value)
        return step if found == end and torch.equal(places.flatten(), torch.arange(places.numel())) else None


def _place_of_bias(program: Program, producers: dict[int, Instruction], site: Joined) -> str | None:
    """Where the bias of a product can go: "none" is needed, "constant", "unit" or "shift"; None if nowhere."""
    bias = site.product.inputs[2:]
    if not bias or (bias[0] in program.constants and not bool(program.constants[bias[0]].any())):
        return "none"
    if not is_projection(program, site.product):
        return None
    if site.kept in program.constants:
        return "constant"
    source = producers.get(site.product.inputs[0])
    if source is None or program.num_uses[site.product.inputs[0]] > 1:
        return None
    if source.operator in _ACTIVATIONS:
        hidden = producers.get(source.inputs[0])
        alone = program.num_uses[source.inputs[0]] == 1
        has_bias = hidden is not None and len(hidden.inputs) == 3
        return "unit" if hidden is not None and alone and has_bias and is_projection(program, hidden) else None
    if source.operator == aten.layer_norm.default and len(source.inputs) == 3 and len(source.args[1]) == 1:
        constant = all(value in program.constants for value in source.inputs[1:])
        outputs, features = program.constants[site.product.inputs[1]].shape
        return "shift" if constant and 4 * outputs <= features and _shift(program.constants, site) is not None else None
    return None


def _shift(constants: Any, site: Joined) -> Tensor | None:
    """The smallest shift that a product turns into its bias; None if it is large."""
    weight, bias = (constants[value].detach().double() for value in site.product.inputs[1:])
    shift = torch.linalg.lstsq(weight, bias.unsqueeze(1), driver="gelsd" if weight.device.type == "cpu" else None)
    found = shift.solution[:, 0]
    exact = bool((weight @ found - bias).abs().max() <= 1e-9 * bias.abs().max())
    return found if exact and float(found.abs().max()) <= _LARGEST_SHIFT else None


class _Writer:
    def __init__(self, program: Program) -> None:
        self.emitter = Emitter(program)
        self._producers = producers_of(program)
        self._made: dict[Hashable, tuple[Ref, ...]] = {}

    def write(self, site: Joined) -> None:
        """Emit the instructions that replace an addition."""
        emit, constants = self.emitter.emit, self.emitter.constants
        output = self.emitter.meta[site.total.outputs[0]]
        rows = torch.Size(output.shape[:-1]).numel()
        place = _place_of_bias(self.emitter.program, self._producers, site)
        source, kept = Ref(site.product.inputs[0]), Ref(site.kept)
        if place == "unit":
            source, weight = self._with_unit(site)
        else:
            weight = self._weight(site, rows)
            source = self._with_shift(site) if place == "shift" else source
        if site.kept in constants:
            bias = site.product.inputs[2:] if place == "constant" else ()
            kept = self._once(("sum", site.kept, *bias, output.shape), lambda: [self._sum(site, bias, output.shape)])[0]
        else:
            kept = emit(aten.view.default, kept, (rows, output.shape[-1]))
        given = emit(aten.view.default, source, (rows, self.emitter.meta[source.value].shape[-1]))
        options: dict[str, Any] = {} if site.factor == 1 else {"alpha": site.factor}
        product = emit(aten.addmm.default, kept, given, weight, **options)
        emit(aten.view.default, product, output.shape, output=site.total.outputs[0])

    def _once(self, key: Hashable, make: Callable[[], list[Tensor]]) -> tuple[Ref, ...]:
        """Constants that all steps share."""
        if key not in self._made:
            self._made[key] = tuple(map(self.emitter.constant, make()))
        return self._made[key]

    def _sum(self, site: Joined, bias: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        constants = self.emitter.constants
        total = sum((site.factor * constants[value] for value in bias), start=constants[site.kept])
        return total.expand(shape).reshape(-1, shape[-1]).contiguous()

    def _weight(self, site: Joined, rows: int) -> Ref:
        value = site.product.inputs[1]
        if value not in self.emitter.constants:
            return self.emitter.emit(aten.t.default, Ref(value))
        return self._once(("weight", value, rows), lambda: [transposed(self.emitter.constants[value], rows)])[0]

    def _with_shift(self, site: Joined) -> Ref:
        constants = self.emitter.constants
        norm = self._producers[site.product.inputs[0]]
        shift = norm.inputs[2]

        def make() -> list[Tensor]:
            found = _shift(constants, site)
            assert found is not None
            return [(constants[shift].double() + found).to(constants[shift].dtype)]

        (moved,) = self._once(("shift", shift, *site.product.inputs[1:]), make)
        args = [moved if isinstance(a, Ref) and a.value == shift else a for a in norm.args]
        return self.emitter.emit(norm.operator, *args, **dict(norm.options))

    def _with_unit(self, site: Joined) -> tuple[Ref, Ref]:
        """Emit the hidden layer with one more unit; returns the activations and the weight after them."""
        constants = self.emitter.constants
        activation = self._producers[site.product.inputs[0]]
        hidden = self._producers[activation.inputs[0]]
        rows = torch.Size(self.emitter.meta[hidden.outputs[0]].shape[:-1]).numel()

        def make() -> list[Tensor]:
            first, offset = (constants[value] for value in hidden.inputs[1:])
            second, bias = (constants[value] for value in site.product.inputs[1:])
            level, reached = _unit(activation, offset)
            first = torch.cat([first, first.new_zeros(_UNITS, first.shape[1])])
            units = offset.new_zeros(_UNITS)
            units[0] = level
            columns = second.new_zeros(len(second), _UNITS)
            columns[:, 0] = bias / reached
            wide = torch.cat([second, columns], dim=1)
            return [_laid(first, rows), torch.cat([offset, units]), transposed(wide, rows)]

        key = activation.operator, activation.args[1:], activation.options, *hidden.inputs[1:], *site.product.inputs[1:]
        weight, offset, after = self._once(("unit", rows, *key), make)
        made = self.emitter.emit(hidden.operator, Ref(hidden.inputs[0]), weight, offset)
        made = self.emitter.emit(activation.operator, made, *activation.args[1:], **dict(activation.options))
        return made, after


def _unit(activation: Instruction, like: Tensor) -> tuple[float, float]:
    """An input from 0 to 4 at which an activation is 1, and what it is there."""
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = activation.operator(like.new_tensor(middle), *activation.args[1:], **dict(activation.options))
        low, high = (middle, high) if float(reached) < 1 else (low, middle)
    level = float(like.new_tensor(high))
    return level, float(activation.operator(like.new_tensor(level), *activation.args[1:], **dict(activation.options)))


def transposed(weight: Tensor, rows: int) -> Tensor:
    """The weight as ``addmm`` takes it, laid out as the product reads it on this device."""
    return _laid(weight, rows).t()


def _laid(weight: Tensor, rows: int) -> Tensor:
    """The weight in column-major order where a CPU reads it faster so; see `relay_weights`."""
    across = weight.device.type == "cpu" and rows >= _MIN_ROWS and weight.dtype == torch.float32
    return weight.t().contiguous().t() if across else weight


def is_dense(meta: Meta) -> bool:
    """Whether the layout is row-major and contiguous."""
    dense = torch.empty(meta.shape, device="meta").stride()
    return all(n == 1 or a == b for n, a, b in zip(meta.shape, meta.stride, dense, strict=True))
