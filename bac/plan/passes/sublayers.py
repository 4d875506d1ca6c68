"""Recognises the sublayers of a transformer that normalises first, for `fuse_sublayers`.

Each begins with a layer norm and ends with a product; views between do not matter. In a cached run the feature is
stored, so the addition to the stream may be missing, or be another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from bac.plan.packed import MOST_ROWS
from bac.plan.passes.emit import is_projection, origin, producers_of
from bac.plan.passes.selfattention import SelfAttention, self_attention_before
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten

_MIN_ROWS = 2  # one row is a matrix-vector product


@dataclass(frozen=True)
class Norm:
    """A layer norm of rows: its input, weight and shift as values (None where it has none), and its epsilon."""

    x: int
    weight: int | None
    shift: int | None
    eps: float


@dataclass(frozen=True)
class Sums:
    """Sums that the operator makes of a feature.

    Attributes:
        feature: Value of the feature; of feature and rest if `with_rest`.
        stream: Value of the norm's input, feature and rest together; None if the program needs no such sum.
        rest: Value of what else is added; None if there is nothing.
        with_rest: Whether `feature` holds the rest.
    """

    feature: int
    stream: int | None = None
    rest: int | None = None
    with_rest: bool = False


@dataclass(frozen=True, eq=False)
class Site:
    """Instructions that one operator replaces.

    Attributes:
        kind: Which one, a name in `bac.plan.packed.Kernels`.
        norm: The norm at its beginning.
        product: The product at its end, whose result is the feature.
        sums: What goes on with the feature.
        inner: What the site computes in between, and no one else needs.
        first: The product after the norm.
        settings: Numbers that the operator takes.
        attention: The self-attention between the products, if there is one.
    """

    kind: str
    norm: Norm
    product: Instruction
    sums: Sums
    inner: tuple[Instruction, ...]
    first: Instruction
    settings: tuple[Any, ...] = ()
    attention: SelfAttention | None = None


class SiteFinder:
    """Finds the sites of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.producers = producers_of(program)
        self._totals = dict(self._additions())
        self._places = {v: place for place, i in enumerate(program.instructions) for v in i.outputs}
        self._readers = defaultdict[int, list[Instruction | None]](list, {v: [None] for v in program.outputs})
        for instruction in program.instructions:
            for value in instruction.inputs:
                self._readers[value].append(instruction)

    def sites(self) -> Iterator[Site]:
        """Sublayers first, then the products after norms that belong to none."""
        found = [
            site for i in self.program.instructions if i.operator == aten.linear.default and (site := self._find(i))
        ]
        inner = {value for site in found for i in site.inner for value in i.outputs}
        yield from found
        taken = {site.product.outputs[0] for site in found} | inner
        for instruction in self.program.instructions:
            if instruction.operator == aten.linear.default and taken.isdisjoint(instruction.outputs):
                norm = self._norm(instruction.inputs[0]) if is_projection(self.program, instruction) else None
                if norm is not None and self._is_small(instruction):
                    yield Site("norm_product", norm, instruction, Sums(instruction.outputs[0]), (), instruction)

    def _find(self, product: Instruction) -> Site | None:
        if not self._is_small(product):
            return None
        source = self._rows(product.inputs[0])
        if source is not None and source.operator == aten._softmax.default:
            return self._cross_attention(product, source)
        if not is_projection(self.program, product):
            return None
        if source is not None and source.operator == aten.gelu.default:
            return self._feed_forward(product, source)
        return self._self_attention(product)

    def _feed_forward(self, product: Instruction, gelu: Instruction) -> Site | None:
        up = self._rows(gelu.inputs[0])
        if up is None or not is_projection(self.program, up) or not self._are_as_wide(up, product):
            return None
        by_tanh = (*gelu.args[1:], *(value for _, value in gelu.options)) == ("tanh",)
        return self._site("feed_forward", product, (up, gelu), up, (by_tanh,))

    def _self_attention(self, product: Instruction) -> Site | None:
        found = self_attention_before(self.program, self.producers, product)
        if found is None:
            return None
        width = self.program.meta[product.outputs[0]].shape[-1]
        heads, size = found.result_columns.shape
        in_order = torch.equal(found.columns.flatten(), torch.arange(3 * width))
        if not in_order or not torch.equal(found.result_columns.flatten(), torch.arange(heads * size)):
            return None
        if self.score_mask(found) is None:
            return None
        given = dict(found.attention.options).get("scale")
        scale = size**-0.5 if given is None else given
        inner = (found.packed, found.attention)
        return self._site("self_attention", product, inner, found.packed, (heads, float(scale)), found)

    def _cross_attention(self, product: Instruction, softmax: Instruction) -> Site | None:
        """As `bac.plan.passes.absorb` writes it."""
        scores = self._rows(softmax.inputs[0])
        shape = self.program.meta[softmax.outputs[0]].shape
        if softmax.args[1:] != (2, False) or len(shape) != 3 or scores is None or scores.options:
            return None
        if scores.operator not in (aten.addmm.default, aten.mm.default) or len(product.inputs) not in (2, 3):
            return None
        meta, width = self.program.meta, shape[1] * shape[2]
        if meta[scores.outputs[0]].shape[-1] != width or not self._are_as_wide(scores, product):
            return None
        if len(scores.inputs) == 3 and meta[scores.inputs[0]].shape[-1] != width:
            return None
        if not all(self._is_transposed(value) for value in (scores.inputs[-1], product.inputs[1])):
            return None
        return self._site("cross_attention", product, (scores, softmax), scores, (shape[1],))

    def _is_transposed(self, matrix: int) -> bool:
        """Whether the transpose of a matrix is at hand."""
        step = self.producers.get(matrix)
        return matrix in self.program.constants or (step is not None and step.operator == aten.t.default)

    def _are_as_wide(self, first: Instruction, product: Instruction) -> bool:
        """Whether the rows that an instruction makes are those that a product reads: views may cut rows anew."""
        return self.program.meta[first.outputs[0]].shape[-1] == self.program.meta[product.inputs[0]].shape[-1]

    def _site(
        self,
        kind: str,
        product: Instruction,
        inner: tuple[Instruction, ...],
        first: Instruction,
        settings: tuple[Any, ...],
        attention: SelfAttention | None = None,
    ) -> Site | None:
        norm = self._norm(first.inputs[-2] if kind == "cross_attention" else first.inputs[0])
        if norm is None:
            return None
        meta = self.program.meta
        if meta[norm.x].shape[-1] != meta[product.outputs[0]].shape[-1] or self._is_read_elsewhere(inner, attention):
            return None
        return Site(kind, norm, product, self._sums(product, norm.x), inner, first, settings, attention)

    def _sums(self, product: Instruction, x: int) -> Sums:
        """The sums after a product. A cached run adds features of other steps, before the stream or after."""
        feature = product.outputs[0]
        stream = self._totals.get((feature, x))
        grown, rest = self._only_sum(feature if stream is None else stream, product)
        if grown is None:
            return Sums(feature, stream)
        if stream is not None:
            return Sums(feature, grown, rest)
        return Sums(grown, self._totals.get((grown, x)), rest, with_rest=True)

    def _only_sum(self, value: int, product: Instruction) -> tuple[int | None, int | None]:
        """The sum that alone reads a value, and what it adds, if that is there before a product is."""
        readers = self._readers
        while len(found := readers[value]) == 1 and found[0] is not None and self.program.is_view(found[0]):
            value = found[0].outputs[0]
        total = found[0] if len(found) == 1 else None
        if total is None or not self._is_addition(total):
            return None, None
        (other,) = (v for v in total.inputs if v != value)
        rest, in_order = self._source(other)
        is_there = rest in self.program.constants or self._places.get(rest, -1) < self._places[product.outputs[0]]
        same_rows = in_order and self._source(value)[1] and rest in self.program.meta
        return (total.outputs[0], rest) if is_there and same_rows else (None, None)

    def score_mask(self, found: SelfAttention) -> Tensor | None:
        """What is added to the scores, `[T, T]`; None if heads differ in it, or a token attends to nothing."""
        _, num_heads, num_tokens, _ = self.program.meta[found.attention.outputs[0]].shape
        masks = [self.program.constants[value] for value in found.attention.inputs[3:]]
        if not masks:
            return torch.zeros(num_tokens, num_tokens, dtype=torch.float32, device="cpu")
        mask = torch.where(masks[0], 0.0, -torch.inf) if masks[0].dtype == torch.bool else masks[0]
        mask = mask.expand(1, num_heads, num_tokens, num_tokens)[0]
        alike = torch.equal(mask, mask[:1].expand_as(mask)) and not bool((mask == -torch.inf).all(2).any())
        return mask[0].contiguous() if alike and mask.dtype == torch.float32 else None

    def _is_small(self, product: Instruction) -> bool:
        """Whether it is a product of few rows in float32 on a CPU."""
        meta = [self.program.meta.get(value) for value in (*product.inputs, *product.outputs)]
        if any(m is None or m.dtype != torch.float32 or m.device.type != "cpu" for m in meta):
            return False
        shape = self.program.meta[product.outputs[0]].shape
        return len(self.program.meta[product.inputs[1]].shape) == 2 and _MIN_ROWS <= prod(shape[:-1]) <= MOST_ROWS

    def _is_read_elsewhere(self, inner: tuple[Instruction, ...], attention: SelfAttention | None) -> bool:
        """Whether the program needs a result in between; queries, keys and values are three views of one result."""
        uses = self.program.num_uses
        return any(uses[i.outputs[0]] > 1 for i in inner if attention is None or i is not attention.packed)

    def _norm(self, value: int) -> Norm | None:
        """The layer norm that makes rows."""
        norm = self._rows(value)
        if norm is None or norm.operator != aten.layer_norm.default:
            return None
        if tuple(norm.args[1]) != tuple(self.program.meta[value].shape[-1:]):
            return None
        weight, shift = (
            argument.value if isinstance(argument, Ref) else None for argument in (*norm.args[2:4], None, None)[:2]
        )
        eps = norm.args[4] if len(norm.args) > 4 else dict(norm.options).get("eps", 1e-5)
        x = norm.inputs[0]
        return Norm(x, weight, shift, float(eps)) if self.program.meta[x].dtype == torch.float32 else None

    def _rows(self, value: int) -> Instruction | None:
        """The instruction that computes a value, if only views that keep all numbers in order are between."""
        found, in_order = self._source(value)
        return self.producers.get(found) if in_order else None

    def _source(self, value: int) -> tuple[int, bool]:
        """The value that a value is a view of, and whether the view keeps all numbers in order."""
        found, places = origin(self.program, self.producers, value)
        is_whole = prod(self.program.meta[found].shape) == places.numel()
        return found, is_whole and torch.equal(places.flatten(), torch.arange(places.numel()))

    def _additions(self) -> Iterator[tuple[tuple[int, int], int]]:
        """Sums of the rows that an instruction computes and a value, by both."""
        for total in self.program.instructions:
            if self._is_addition(total):
                for added, kept in (total.inputs, total.inputs[::-1]):
                    source, in_order = self._source(added)
                    if in_order:
                        yield (source, kept), total.outputs[0]

    def _is_addition(self, total: Instruction) -> bool:
        """Whether it adds two different values of one shape, in float32."""
        if total.operator != aten.add.Tensor or total.options or len(set(total.inputs)) != 2:
            return False
        metas = [self.program.meta[v] for v in (*total.inputs, *total.outputs) if v in self.program.meta]
        return {(m.shape, m.dtype) for m in metas} == {(metas[-1].shape, torch.float32)}
