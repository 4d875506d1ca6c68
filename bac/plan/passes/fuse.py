"""Makes every sublayer of few rows one operator, for compiled plans on a CPU.

Inductor fuses loops, but a layer has few that are next to each other: it launches 13 kernels. The operators of
`bac.plan.packed` do a whole sublayer, so a layer launches three. A trial decides for each shape, when a plan is built:
the operator must not take longer than the separate ones, whose products may be packed, too.

Re-associates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from bac.plan.packed import kernels, pack, plain
from bac.plan.passes.emit import Emitter, producers_of
from bac.plan.passes.layouts import in_panels
from bac.plan.passes.pack import is_packed_faster, shortest
from bac.plan.passes.selfattention import SelfAttention
from bac.plan.passes.sublayers import Site, SiteFinder
from bac.plan.program import Program, Ref

aten = torch.ops.aten

_SLOWER = 1.03  # at most, times the separate operators: what takes as long launches less
_COLD = 1 << 22  # weights of a trial together: 16 MB, more than the caches of one core

# Places of weights among an operator's arguments.
_WEIGHTS = {"norm_product": (4,), "feed_forward": (4, 6), "self_attention": (4, 7), "cross_attention": ()}


def fuse_sublayers(program: Program) -> Program:
    """Rewrite the sublayers for which that pays. Without a C++ compiler the program stays as it is."""
    finder = SiteFinder(program)
    writer = _Writer(program, finder)
    sites = {site.product.outputs[0]: site for site in finder.sites() if writer.pays(site)}
    sums = {value for site in sites.values() for value in (site.sums.feature, site.sums.stream)}
    emitter = writer.emitter
    for instruction in program.instructions:
        site = sites.get(instruction.outputs[0]) if instruction.outputs else None
        if site is not None:
            writer.write(site)
        elif sums.isdisjoint(instruction.outputs):
            emitter.kept.append(instruction)
    return emitter.finish()


class _Writer:
    """Writes sites. Sites of one block share their constants."""

    def __init__(self, program: Program, finder: SiteFinder) -> None:
        self.emitter = Emitter(program)
        self._program = program
        self._finder = finder
        self._producers = producers_of(program)
        self._made: dict[Hashable, Ref] = {}

    def pays(self, site: Site) -> bool:
        """Whether the operator of a site is there, and not slower than what it replaces."""
        if getattr(kernels(), site.kind) is None:
            return False
        given, meta = self._arguments(site), self.emitter.meta
        shapes = tuple(tuple(meta[a.value].shape) if isinstance(a, Ref) else a for a in given)
        return _is_fast_enough(site.kind, shapes, torch.get_num_threads())

    def write(self, site: Site) -> None:
        """Emit the operator that replaces a site; its results keep their names."""
        emitter, sums = self.emitter, site.sums
        arguments = [
            self._packed(argument.value) if place in _WEIGHTS[site.kind] else argument
            for place, argument in enumerate(self._arguments(site))
        ]
        operator = getattr(kernels(), site.kind)
        if site.kind == "norm_product":
            made = emitter.emit(operator, *arguments)
            self._name(made, sums.feature)
            return
        own, stream = emitter.emit_all(operator, *arguments, outputs=(None, None))
        self._name(own, sums.feature)
        if sums.stream is not None:
            self._name(stream, sums.stream)

    def _name(self, made: Ref, value: int) -> None:
        """Give a result the name and the shape that the program knows."""
        self.emitter.emit(aten.view.default, made, self._program.meta[value].shape, output=value)

    def _arguments(self, site: Site) -> tuple[Any, ...]:
        """Arguments of the plain operator, weights `[in, out]`."""
        width = self._program.meta[site.norm.x].shape[-1]
        norm = self._ones(width) if site.norm.weight is None else Ref(site.norm.weight)
        shift = self._zeros(width) if site.norm.shift is None else Ref(site.norm.shift)
        begin = Ref(site.norm.x), norm, shift, site.norm.eps
        rest = self._zeros(width) if site.sums.rest is None else Ref(site.sums.rest)
        end = *site.settings, rest, site.sums.with_rest
        if site.kind == "cross_attention":
            keys, values = self._transposed(site.first.inputs[-1]), self._transposed(site.product.inputs[1])
            tokens = self.emitter.meta[keys.value].shape[0]
            offset = Ref(site.first.inputs[0]) if len(site.first.inputs) == 3 else self._zeros(tokens)
            bias = Ref(site.product.inputs[2]) if len(site.product.inputs) == 3 else self._zeros(width)
            return *begin, keys, offset, values, bias, *end
        first, last = (self._weight(product) for product in (site.first, site.product))
        if site.kind == "norm_product":
            return *begin, *last
        if site.attention is None:
            return *begin, *first, *last, *end
        return *begin, *first, self._mask(site.attention), *last, *end

    def _mask(self, found: SelfAttention) -> Ref:
        masks, shape = found.attention.inputs[3:], self._program.meta[found.attention.outputs[0]].shape
        return self._once(("mask", masks, shape), lambda: self._finder.score_mask(found))

    def _packed(self, weight: int) -> Ref:
        return self._once(("packed", weight), lambda: in_panels(self.emitter.constants[weight]))

    def _weight(self, product: Any) -> tuple[Ref, Ref]:
        """Weight `[in, out]` and bias of a projection."""
        weight, *bias = product.inputs[1:]
        matrix = self._once(("weight", weight), lambda: self.emitter.constants[weight].t())
        return matrix, Ref(bias[0]) if bias else self._zeros(self.emitter.meta[matrix.value].shape[1])

    def _transposed(self, value: int) -> Ref:
        """The transpose of a matrix: what it is a transpose of, if it is one."""
        step = self._producers.get(value)
        if step is not None and step.operator == aten.t.default:
            return Ref(step.inputs[0])
        return self._once(("t", value), lambda: self.emitter.constants[value].t().contiguous())

    def _zeros(self, size: int) -> Ref:
        return self._once(("zeros", size), lambda: torch.zeros(size, dtype=torch.float32, device="cpu"))

    def _ones(self, size: int) -> Ref:
        return self._once(("ones", size), lambda: torch.ones(size, dtype=torch.float32, device="cpu"))

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Ref:
        if key not in self._made:
            self._made[key] = self.emitter.constant(make())
        return self._made[key]


@cache
def _is_fast_enough(kind: str, shapes: tuple[Any, ...], threads: int) -> bool:
    """Time the operator and the separate ones in turns, on weights outside of the nearest caches."""
    places = _WEIGHTS[kind]
    numbers = [_random(a) if isinstance(a, tuple) else a for a in shapes]
    size = sum(numbers[place].numel() for place in places)
    copies = min(max(1, _COLD // max(size, 1)), 16)
    given = [[a.clone() if place in places else a for place, a in enumerate(numbers)] for _ in range(copies)]
    panels = {id(a): pack(a) for arguments in given for a in (arguments[place] for place in places)}
    packed = [[panels.get(id(a), a) for a in arguments] for arguments in given]
    operator, separate = getattr(kernels(), kind), getattr(plain, kind)
    if kind != "cross_attention":
        separate = partial(separate, by=partial(_multiplied, panels))
    calls: tuple[Callable[[int], Any], ...] = (
        lambda place: operator(*packed[place]),
        lambda place: separate(*given[place]),
    )
    ours, theirs = shortest(calls, copies)
    return ours <= _SLOWER * theirs


def _multiplied(panels: dict[int, Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The product as `pack_products` would write it."""
    if is_packed_faster(x.shape[:-1].numel(), *weight.shape):
        product: Tensor = kernels().product(x, panels[id(weight)], bias, weight.shape[1])
        return product
    return plain.multiplied(x, weight, bias)


def _random(shape: tuple[int, ...]) -> Tensor:
    numbers = torch.empty(shape, dtype=torch.float32, device="cpu")
    return numbers.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(0))
