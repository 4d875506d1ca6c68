"""Absorbs projections into the keys and values of a short memory.

A cross-attention projects its queries and its result by E x E matrices, and attends to few tokens, S. With H heads::

    softmax((x Wq + bq) K') V Wo  ==  softmax(x A + c) B      A = Wq K': E x SH,  c = bq K',  B = V Wo: SH x E

so two products with E x E weights become two with E x SH. Each token of the memory has its own rows of A', c and B.
The rows of the timestep token are constants of the denoising step; those of the observation tokens serve all steps.
That pays if SH < E, and if the memory is partly constant or read at several steps.

Re-associates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from math import sqrt

import torch
from torch import Tensor

from bac.plan.passes.emit import Emitter, is_projection, origin, producers_of
from bac.plan.passes.factors import Absorbable, StackedFactors, before_sites, can_stack
from bac.plan.program import Instruction, Program, Ref

aten = torch.ops.aten


def absorb_projections(program: Program) -> Program:
    """Rewrite every cross-attention for which that pays."""
    finder = _Finder(program)
    sites = {i.outputs[0]: site for i in program.instructions if (site := finder.find(i)) is not None}
    uses = Counter(site.memory for site in sites.values())
    worth = {v: s for v, s in sites.items() if uses[s.memory] > 1 or finder.is_partly_constant(s.memory)}
    return _Writer(program, worth).rewritten()


class _Finder:
    """Recognises sites by the origin of every element, so that views between the products do not matter."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.producers = producers_of(program)

    def is_partly_constant(self, memory: int) -> bool:
        """Whether some tokens are constants."""
        return any(part in self.program.constants for part in parts_of(self.producers[memory]))

    def find(self, result: Instruction) -> Absorbable | None:
        """The site that ends in this product; None if there is none, or the rewrite would not pay."""
        meta, constants = self.program.meta, self.program.constants
        if not is_projection(self.program, result):
            return None
        attended, result_places = origin(self.program, self.producers, result.inputs[0])
        attention = self.producers.get(attended)
        if attention is None or not _is_plain(attention):
            return None
        query, key, value, *masks = attention.inputs
        # A and B depend on the observation, so they serve one sample.
        if meta[query].shape[0] != 1 or any(mask not in constants for mask in masks):
            return None
        projected, query_places = origin(self.program, self.producers, query)
        (memory, key_places), (other, value_places) = (origin(self.program, self.producers, v) for v in (key, value))
        product = self.producers.get(projected)
        if (
            product is None
            or not is_projection(self.program, product)
            or memory != other
            or memory not in self.producers
        ):
            return None
        queries = _columns(query_places[0], meta[projected].shape)
        keys = _columns(key_places[0], meta[memory].shape)
        values = _columns(value_places[0], meta[memory].shape)
        results = _columns_back(result_places, meta[attended].shape)
        if queries is None or keys is None or values is None or results is None:
            return None
        _, num_heads, num_queries, head_size = meta[query].shape
        num_tokens, features = meta[key].shape[2], meta[product.inputs[0]].shape[-1]
        # SH >= E would make the products larger.
        if num_tokens * num_heads >= features or meta[result.outputs[0]].shape[-1] != features:
            return None
        both = torch.cat([keys, values]).flatten()
        if keys.shape != values.shape or not torch.equal(both, both[0] + torch.arange(len(both))):
            return None  # the writer slices keys and values as one run of columns, head after head
        return Absorbable(
            product.inputs[0],
            memory,
            product.inputs[1:],
            result,
            queries,
            results,
            first_column=int(both[0]),
            mask=masks[0] if masks else None,
            scale=dict(attention.options).get("scale") or 1 / sqrt(head_size),
            num_queries=num_queries,
            num_tokens=num_tokens,
        )


def parts_of(memory: Instruction) -> tuple[int, ...]:
    """The values whose rows make up a memory; the memory itself if it is not a concatenation."""
    along_rows = memory.args[1:] in ((), (0,))
    return memory.inputs if memory.operator == aten.cat.default and along_rows else memory.outputs


def _is_plain(attention: Instruction) -> bool:
    """Whether it is softmax attention without dropout and without a causal mask."""
    if attention.operator != aten.scaled_dot_product_attention.default:
        return False
    extra = [argument for argument in attention.args[3:] if not isinstance(argument, Ref)]
    return not any(extra) and {name for name, _ in attention.options} <= {"scale"}


def _columns(places: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Columns `[H, D]` of elements (h, n, i) at `places`, `[H, N, D]`, in a matrix; None if one is not in row n."""
    num_rows = places.shape[1]
    if torch.Size(shape[:-1]).numel() != num_rows:
        return None
    rows = torch.arange(num_rows)[None, :, None] * shape[-1]
    columns = places[:, :1] - rows[:, :1]
    in_row = bool(((columns >= 0) & (columns < shape[-1])).all())
    return columns[:, 0] if in_row and torch.equal(columns + rows, places) else None


def _columns_back(places: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Column `[H, D]` of element (h, n, i) of `[1, H, N, D]`, from each column's places; None if it is not in row n."""
    _, num_heads, num_rows, size = shape
    places = places.reshape(-1, places.shape[-1])
    if places.shape != (num_rows, num_heads * size):
        return None
    head, row, inner = places // (num_rows * size), places // size % num_rows, places % size
    same = torch.equal(head, head[:1].expand_as(head)) and torch.equal(inner, inner[:1].expand_as(inner))
    if not same or not torch.equal(row, torch.arange(num_rows)[:, None].expand_as(row)):
        return None
    columns = torch.full((num_heads, size), -1)
    columns[head[0], inner[0]] = torch.arange(places.shape[1])
    return columns if bool((columns >= 0).all()) else None


class _Writer:
    """Writes sites. Sites of one block share their weights, and the factors of tokens that all steps share."""

    def __init__(self, program: Program, sites: Mapping[int, Absorbable]) -> None:
        producers = producers_of(program)
        parts = [(site, parts_of(producers[site.memory])) for site in sites.values()]
        earlier = None
        if can_stack(program, parts):
            variables = {part for _, of_site in parts for part in of_site if part not in program.constants}
            earlier = before_sites(program, set(sites), variables)
        self.emitter = Emitter(earlier or program)
        self._sites = sites
        self._producers = producers
        self._weights: dict[Hashable, tuple[Ref, bool]] = {}
        self._masks: dict[Hashable, Ref] = {}
        self._factors: dict[Hashable, Ref] = {}
        self._stacked: StackedFactors | None = None
        if earlier is not None:
            weights = [self._weight(site) for site, _ in parts]
            if len({has_bias for _, has_bias in weights}) == 1:
                matrices = [self.emitter.constants[weight.value] for weight, _ in weights]
                masks = [None if site.mask is None else self._mask(site) for site, _ in parts]
                self._stacked = StackedFactors(self.emitter, parts, matrices, masks)

    def rewritten(self) -> Program:
        """The program with all sites rewritten."""
        return self.emitter.rewrite(self._sites, self.write)

    def write(self, site: Absorbable) -> None:
        """Emit the instructions that replace a site."""
        emit, meta = self.emitter.emit, self.emitter.meta
        num_heads, num_queries, num_tokens = len(site.query_columns), site.num_queries, site.num_tokens
        features, width = meta[site.source].shape[-1], num_heads * num_tokens
        output = meta[site.result.outputs[0]].shape
        rows = emit(aten.reshape.default, Ref(site.source), (num_queries, features))
        if self._stacked is not None:
            factors = self._stacked.of(site)
            keys, values, bias = factors.keys, emit(aten.t.default, factors.values), []
            product = aten.mm.default if factors.offset is None else aten.addmm.default
            scores = emit(product, *([] if factors.offset is None else [factors.offset]), rows, keys)
        else:
            keys, values, scores = self._scores(site, rows)
            bias = [Ref(value) for value in site.result.inputs[2:]]
        scores = emit(aten.view.default, scores, (num_queries, num_heads, num_tokens))
        shares = emit(aten.view.default, emit(aten._softmax.default, scores, 2, False), (*output[:-1], width))
        emit(aten.linear.default, shares, values, *bias, output=site.result.outputs[0])

    def _scores(self, site: Absorbable, rows: Ref) -> tuple[Ref, Ref, Ref]:
        """Factors of keys `[E, H * S]` and values `[E, H * S]`, and scores, of one site alone."""
        emit = self.emitter.emit
        weight, has_bias = self._weight(site)
        features, width = self.emitter.meta[site.source].shape[-1], len(site.query_columns) * site.num_tokens
        factors = emit(aten.view.default, self._all_factors(site, weight), (2, width, features + has_bias))
        keys, values = (emit(aten.select.int, factors, 0, place) for place in (0, 1))
        # The last column of the keys' factors is c; that of the values' is zero.
        offset = emit(aten.select.int, keys, 1, features) if has_bias else None
        keys, values = (emit(aten.t.default, emit(aten.slice.Tensor, f, 1, 0, features)) for f in (keys, values))
        # addmm adds one matrix in the same operator: c if there is one, otherwise the mask.
        mask = self._mask(site) if site.mask is not None else None
        if offset is not None:
            scores = emit(aten.addmm.default, offset, rows, keys)
            scores = scores if mask is None else emit(aten.add.Tensor, scores, mask)
        elif mask is not None:
            scores = emit(aten.addmm.default, mask, rows, keys)
        else:
            scores = emit(aten.mm.default, rows, keys)
        return keys, values, scores

    def _all_factors(self, site: Absorbable, weight: Ref) -> Ref:
        """A' (and c) of all heads, then B of all heads: `[2 H, S, E]`, or `[2 H, S, E + 1]`."""
        factors = [self._factors_of(site, part, weight) for part in parts_of(self._producers[site.memory])]
        return factors[0] if len(factors) == 1 else self.emitter.emit(aten.cat.default, tuple(factors), 1)

    def _factors_of(self, site: Absorbable, part: int, weight: Ref) -> Ref:
        """Factors of some tokens: a constant, or instructions at the first site that needs them."""
        key = part, weight
        if key not in self._factors:
            emit, constants = self.emitter.emit, self.emitter.constants
            num_heads, size = 2 * site.query_columns.shape[0], site.query_columns.shape[1]
            first, last = site.first_column, site.first_column + num_heads * size
            if part in constants:
                tokens = constants[part].flatten(0, -2)[:, first:last].reshape(-1, num_heads, size).transpose(0, 1)
                self._factors[key] = self.emitter.constant(tokens.bmm(constants[weight.value]))
            else:
                rows = emit(aten.reshape.default, Ref(part), (-1, self.emitter.meta[part].shape[-1]))
                columns = emit(aten.slice.Tensor, rows, 1, first, last)
                heads = emit(aten.reshape.default, columns, (-1, num_heads, size))
                self._factors[key] = emit(aten.bmm.default, emit(aten.transpose.int, heads, 0, 1), weight)
        return self._factors[key]

    def _weight(self, site: Absorbable) -> tuple[Ref, bool]:
        """Factors of each head's keys and values, `[2 H, D, E]`; with one more column if queries have a bias."""
        key = site.query, site.result.inputs[1], site.scale
        if key not in self._weights:
            matrix, has_bias = _factor_weight(site, self.emitter.constants)
            self._weights[key] = self.emitter.constant(matrix), has_bias
        return self._weights[key]

    def _mask(self, site: Absorbable) -> Ref:
        """The mask for scores `[T, H * S]`."""
        assert site.mask is not None
        num_heads = len(site.query_columns)
        key = site.mask, site.num_queries, site.num_tokens, num_heads
        if key not in self._masks:
            given, dtype = self.emitter.constants[site.mask], self.emitter.meta[site.source].dtype
            mask = torch.where(given, 0.0, -torch.inf) if given.dtype == torch.bool else given
            mask = mask.expand(1, num_heads, site.num_queries, site.num_tokens)[0].transpose(0, 1)
            self._masks[key] = self.emitter.constant(mask.reshape(site.num_queries, -1).to(dtype))
        return self._masks[key]


def _factor_weight(site: Absorbable, constants: Mapping[int, Tensor]) -> tuple[Tensor, bool]:
    weight, *bias = (constants[value].double() for value in site.query)  # in float64, rounded once at the end
    out = constants[site.result.inputs[1]].double()
    has_bias = bool(bias) and bool(bias[0].any())
    queries = weight[site.query_columns] * site.scale  # [H, D, E]
    results = out.T[site.result_columns]  # [H, D, E]
    if has_bias:
        offsets = bias[0][site.query_columns].unsqueeze(2) * site.scale
        queries = torch.cat([queries, offsets], dim=2)
        results = torch.cat([results, torch.zeros_like(offsets)], dim=2)
    return torch.cat([queries, results]).to(constants[site.query[0]].dtype), has_bias
