"""Makes the factors of absorbed projections for all layers at once.

The layers of a denoiser attend to the same memory, so `absorb_projections` needs the same products for each of them::

    per run    one product gives the keys and values of all layers, one batched product their factors
    per step   one `cat` puts in the step's constant tokens, one addition the mask

instead of two operators per layer and run, and up to two per layer and step. The bias of the result's product goes into
the values' factors: the shares of the tokens sum to one in every head.

Re-associates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bac.plan.passes.emit import Emitter, is_projection, producers_of
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Absorbable:
    """A cross-attention of one batch row, from the product that makes its queries to the one that makes its result.

    Attributes:
        source: Input of the query projection: T rows of E.
        memory: Value with keys and values as its columns: S rows; keys of all heads, then values of all heads.
        query: Weight `[.., E]` and bias of the first product, as values; the bias may be missing.
        result: The last product.
        query_columns: Output of the first product that is element (head, i) of the queries, `[H, D]`.
        result_columns: Input of the last product that is element (head, i) of the attention's output, `[H, D]`.
        first_column: Column of `memory` at which the keys begin.
        mask: Constant added to the scores, or None.
        scale: Factor of the scores.
        num_queries: T.
        num_tokens: S.
    """

    source: int
    memory: int
    query: tuple[int, ...]
    result: Instruction
    query_columns: Tensor
    result_columns: Tensor
    first_column: int
    mask: int | None
    scale: float
    num_queries: int
    num_tokens: int


@dataclass(frozen=True)
class Stacked:
    """Factors of one site.

    Attributes:
        keys: A, `[E, H * S]`.
        values: B, `[H * S, E]`, with the bias of the result's product in it.
        offset: c and the mask, `[1 or T, H * S]`; None if there is neither.
    """

    keys: Ref
    values: Ref
    offset: Ref | None


class StackedFactors:
    """Factors of sites whose memories are alike: constant tokens and one variable part, projected from one value.

    Args:
        emitter: Writes the program.
        sites: Sites in order, with the parts of each memory.
        weights: Factors of each head's keys and values per site, `[2 H, D, E]`, or `[2 H, D, E + 1]`.
        masks: Mask of each site for scores `[T, H * S]`.
    """

    def __init__(
        self,
        emitter: Emitter,
        sites: Sequence[tuple[Absorbable, tuple[int, ...]]],
        weights: Sequence[Tensor],
        masks: Sequence[Ref | None],
    ) -> None:
        self.emitter = emitter
        self._parts = {id(site): parts for site, parts in sites}
        self._masks = {id(site): mask for (site, _), mask in zip(sites, masks, strict=True)}
        self._weights = {id(site): weight for (site, _), weight in zip(sites, weights, strict=True)}
        self._layers: dict[tuple[object, ...], int] = {}
        self._first: list[Absorbable] = []  # a site of each layer
        for site, parts in sites:
            if _layer(site, parts, emitter) not in self._layers:
                self._layers[_layer(site, parts, emitter)] = len(self._layers)
                self._first.append(site)
        self._steps = self._group([site for site, _ in sites])
        self._of: dict[int, Stacked] = {}
        self._rows: Ref | None = None

    def of(self, site: Absorbable) -> Stacked:
        """The factors of a site, made at the first site of its step."""
        if id(site) not in self._of:
            self._write(next(step for step in self._steps if any(other is site for other in step)))
        return self._of.pop(id(site))

    def _group(self, sites: Sequence[Absorbable]) -> list[list[Absorbable]]:
        """Successive sites of different layers: those of one step."""
        steps: list[list[Absorbable]] = []
        seen: set[int] = set()
        for site in sites:
            place = self._place(site)
            if not steps or place in seen:
                steps.append([])
                seen = set()
            steps[-1].append(site)
            seen.add(place)
        return steps

    def _place(self, site: Absorbable) -> int:
        return self._layers[_layer(site, self._parts[id(site)], self.emitter)]

    def _write(self, step: Sequence[Absorbable]) -> None:
        """Write the factors of a step's sites as one tensor, `[layers, 2 H, S, E + 1]`."""
        emit = self.emitter.emit
        places = [self._place(site) for site in step]
        first, last = min(places), max(places) + 1
        num_heads, num_tokens = len(step[0].query_columns), step[0].num_tokens
        rows = self._variable_rows()
        width = self.emitter.meta[rows.value].shape[-1]
        features = self.emitter.meta[step[0].source].shape[-1]
        if (first, last) != (0, len(self._layers)):
            rows = emit(aten.slice.Tensor, rows, 0, 2 * num_heads * first, 2 * num_heads * last)
        tokens = self._with_constants(step, rows, first, last)
        whole = emit(aten.view.default, tokens, (last - first, 2, num_heads * num_tokens, width))
        offsets = self._offsets(step, whole, features)
        for site, place in zip(step, places, strict=True):
            both = emit(aten.select.int, whole, 0, place - first)
            keys, values = (emit(aten.select.int, both, 0, kind) for kind in (0, 1))
            keys, values = (emit(aten.slice.Tensor, part, 1, 0, features) for part in (keys, values))
            offset = emit(aten.select.int, offsets, 0, place - first) if offsets is not None else self._masks[id(site)]
            self._of[id(site)] = Stacked(emit(aten.t.default, keys), values, offset)

    def _offsets(self, step: Sequence[Absorbable], whole: Ref, features: int) -> Ref | None:
        """c and the mask of a step's sites, `[layers, 1 or T, H * S]`; None if queries have no bias."""
        if self.emitter.meta[whole.value].shape[-1] == features:
            return None
        emit = self.emitter.emit
        keys = emit(aten.select.int, whole, 1, 0)
        offsets = emit(aten.unsqueeze.default, emit(aten.select.int, keys, 2, features), 1)
        mask = self._masks[id(step[0])]
        return offsets if mask is None else emit(aten.add.Tensor, offsets, mask)

    def _variable_rows(self) -> Ref:
        """Factors of the variable tokens of all layers, `[layers * 2 H, tokens, E + 1]`, written once."""
        if self._rows is None:
            emit, constants = self.emitter.emit, self.emitter.constants
            producers = producers_of(self.emitter.program)
            products = [producers[self._variable(site)] for site in self._first]
            num_heads, size = self._first[0].query_columns.shape
            columns = [slice(s.first_column, s.first_column + 2 * num_heads * size) for s in self._first]
            layers = list(zip(products, columns, strict=True))
            weight, *bias = (
                self.emitter.constant(torch.cat([constants[p.inputs[at]][c] for p, c in layers]))
                for at in range(1, len(products[0].inputs))
            )
            given = emit(
                aten.reshape.default, Ref(products[0].inputs[0]), (-1, constants[products[0].inputs[1]].shape[1])
            )
            tokens = emit(aten.linear.default, given, weight, *bias)
            heads = emit(aten.view.default, tokens, (-1, len(self._first) * 2 * num_heads, size))
            matrix = self.emitter.constant(torch.cat([self._weights[id(site)] for site in self._first]))
            shift = torch.cat([self._bias(site) for site in self._first])
            heads = emit(aten.transpose.int, heads, 0, 1)
            if bool(shift.any()):
                self._rows = emit(aten.baddbmm.default, self.emitter.constant(shift), heads, matrix)
            else:
                self._rows = emit(aten.bmm.default, heads, matrix)
        return self._rows

    def _bias(self, site: Absorbable) -> Tensor:
        """What the bias of the result's product adds to every token's factors, `[2 H, 1, E + 1]`."""
        weight = self._weights[id(site)]
        shift = weight.new_zeros(len(weight), 1, weight.shape[-1])
        for value in site.result.inputs[2:]:
            bias, num_heads = self.emitter.constants[value], len(site.query_columns)
            shift[num_heads:, 0, : len(bias)] = bias / num_heads
        return shift

    def _with_constants(self, step: Sequence[Absorbable], rows: Ref, first: int, last: int) -> Ref:
        """Put the constant tokens of a step before and after the variable ones; zeros for layers without a site."""
        constants = self.emitter.constants
        of_layer = {self._place(site): site for site in step}
        pieces: list[Ref] = []
        for at, part in enumerate(self._parts[id(step[0])]):
            if part not in constants:
                pieces.append(rows)
                continue
            made = {place: self._constant(site, self._parts[id(site)][at]) for place, site in of_layer.items()}
            none = torch.zeros_like(next(iter(made.values())))
            pieces.append(self.emitter.constant(torch.cat([made.get(place, none) for place in range(first, last)])))
        return self.emitter.emit(aten.cat.default, tuple(pieces), 1) if len(pieces) > 1 else rows

    def _constant(self, site: Absorbable, part: int) -> Tensor:
        """Factors of constant tokens of one layer, `[2 H, tokens, E + 1]`."""
        num_heads, size = site.query_columns.shape
        columns = slice(site.first_column, site.first_column + 2 * num_heads * size)
        tokens = self.emitter.constants[part].flatten(0, -2)[:, columns].reshape(-1, 2 * num_heads, size)
        return torch.baddbmm(self._bias(site), tokens.transpose(0, 1), self._weights[id(site)])

    def _variable(self, site: Absorbable) -> int:
        return next(part for part in self._parts[id(site)] if part not in self.emitter.constants)


def _layer(site: Absorbable, parts: tuple[int, ...], emitter: Emitter) -> tuple[object, ...]:
    """Sites of one layer share their weights and the variable part of their memory."""
    return (*site.query, *site.result.inputs[1:], *(part for part in parts if part not in emitter.constants))


def can_stack(program: Program, sites: Sequence[tuple[Absorbable, tuple[int, ...]]]) -> bool:
    """Whether all sites are alike, and the variable part of each memory is projected from one value."""
    producers = producers_of(program)

    def likeness(site: Absorbable, parts: tuple[int, ...]) -> tuple[object, ...] | None:
        constants, meta = program.constants, program.meta
        variable = [part for part in parts if part not in constants]
        if len(variable) != 1 or variable[0] not in producers or not is_projection(program, producers[variable[0]]):
            return None
        product = producers[variable[0]]
        tokens = tuple((part in constants, torch.Size(meta[part].shape[:-1]).numel()) for part in parts)
        biases = len(product.inputs), len(site.query), len(site.result.inputs)
        sizes = site.query_columns.shape, site.num_queries, site.num_tokens, meta[site.source].shape[-1]
        return product.inputs[0], meta[variable[0]].shape, tokens, biases, sizes, site.mask

    alike = {likeness(site, parts) for site, parts in sites}
    return len(alike) == 1 and None not in alike


def before_sites(program: Program, results: set[int], variables: set[int]) -> Program | None:
    """The program with all that makes `variables` before the first of `results`; None if it needs one of them."""
    producers = producers_of(program)
    wanted: set[int] = set()
    waiting = [producers[value].inputs[0] for value in variables]
    while waiting:
        value = waiting.pop()
        if value in wanted or value not in producers:
            continue
        if value in results or producers[value].draws:
            return None
        wanted.add(value)
        waiting += producers[value].inputs
    early: list[Instruction] = []
    late: list[Instruction] = []
    for instruction in program.instructions:
        (early if not wanted.isdisjoint(instruction.outputs) else late).append(instruction)
    return program.with_instructions((*early, *late))
