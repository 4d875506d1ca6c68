"""Finds what a long sequence repeats: denoising steps, and in them layers.

A sequence of whole numbers is cut where pieces of it occur again. The piece that saves most is cut first, then the one
that saves most of what is left. A suffix array lists all candidates at once (Manber and Myers, SIAM J. Comput. 22(5),
1993; its intervals of equal beginnings: Abouelhoda, Kurtz and Ohlebusch, J. Discrete Algorithms 2(1), 2004).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
_AS_GOOD = 0.97  # of the best saving: among such pieces, the cheapest cut decides


@dataclass(frozen=True)
class Repeat:
    """A piece of a sequence that occurs again.

    Attributes:
        starts: Where it begins; the occurrences do not overlap.
        length: Its length.
        saving: The weight that occurrences beyond the first have together, less the price of all.
    """

    starts: tuple[int, ...]
    length: int
    saving: float


def repeats(
    sequence: Sequence[int],
    weights: Sequence[int],
    cuts: Sequence[int],
    form: Callable[[int, int], Hashable],
    *,
    price: Callable[[int], float],
    longest: int,
    least: float,
) -> Iterator[Repeat]:
    """Find pieces that occur again, the one that saves most first. They do not overlap.

    Args:
        sequence: What to cut. A negative number is a place that no piece may hold.
        weights: What each place costs once.
        cuts: What a cut before each place costs, and at the end: one more than places. Decides between pieces alike.
        form: Of a start and an end. Occurrences of one piece have equal forms.
        price: What each occurrence of a piece of some weight costs.
        longest: Largest length of a piece.
        least: What a piece must save.
    """
    tokens = _with_barriers(sequence)
    total = np.concatenate([[0], np.cumsum(np.asarray(weights, dtype=np.int64))])
    while (found := _best(tokens, total, cuts, form, price, longest, least)) is not None:
        yield found
        for start in found.starts:
            tokens[start : start + found.length] = -1
        tokens = _with_barriers(tokens.tolist())


def _with_barriers(sequence: Sequence[int]) -> Whole:
    """The sequence with another number at every negative place, so that none of them equals another."""
    tokens = np.asarray(sequence, dtype=np.int64)
    barred = tokens < 0
    tokens[barred] = -1 - np.arange(barred.sum())
    return tokens


def _best(
    tokens: Whole,
    total: Whole,
    cuts: Sequence[int],
    form: Callable[[int, int], Hashable],
    price: Callable[[int], float],
    longest: int,
    least: float,
) -> Repeat | None:
    def saving(number: int, start: int, length: int) -> float:
        weight = int(total[start + length] - total[start])
        return (number - 1) * weight - number * price(weight)

    order = suffix_array(tokens)
    shared = np.minimum(common_prefixes(tokens, order), longest).tolist()
    candidates = []
    for length, low, high in intervals(shared):
        starts = order[low:high]
        most = min(high - low, int(starts.max() - starts.min()) // length + 1)  # without overlaps
        candidates.append((saving(most, int(starts[0]), length), length, low, high))
    candidates.sort(key=lambda candidate: -candidate[0])
    best, found = 0.0, list[Repeat]()
    for bound, length, low, high in candidates:
        if bound < max(least, _AS_GOOD * best):
            break
        for alike in _alike(order[low:high].tolist(), length, form):
            found.append(Repeat(alike, length, saving(len(alike), alike[0], length)))
            best = max(best, found[-1].saving)
    wanted = max(least, _AS_GOOD * best)
    good = [repeat for repeat in found if repeat.saving >= wanted]
    chosen = min(good, key=lambda r: (cuts[r.starts[0]] + cuts[r.starts[0] + r.length], -r.saving), default=None)
    return chosen and next(
        (shorter for shorter in _within(chosen, tokens, form, saving) if shorter.saving >= wanted), chosen
    )


def _within(
    repeat: Repeat,
    tokens: Whole,
    form: Callable[[int, int], Hashable],
    saving: Callable[[int, int, int], float],
) -> Iterator[Repeat]:
    """Pieces that a piece itself is a row of, the shortest first; they are cut at the same places, and at more.

    Equal beginnings do not show them: those of a row of equal steps are several steps long.
    """
    first, length = repeat.starts[0], repeat.length
    for period in (p for p in range(1, length // 2 + 1) if length % p == 0):
        if (tokens[first : first + length - period] == tokens[first + period : first + length]).all():
            starts = [start + offset for start in repeat.starts for offset in range(0, length, period)]
            if len({form(start, start + period) for start in starts}) == 1:
                yield Repeat(tuple(starts), period, saving(len(starts), first, period))


def _alike(starts: Sequence[int], length: int, form: Callable[[int, int], Hashable]) -> Iterator[tuple[int, ...]]:
    """Starts that do not overlap and have one form; only groups of two or more."""
    groups, end = defaultdict[Hashable, list[int]](list), -1
    for start in sorted(starts):
        if start >= end:
            groups[form(start, start + length)].append(start)
            end = start + length
    return (tuple(group) for group in groups.values() if len(group) > 1)


def suffix_array(tokens: Whole) -> Whole:
    """Starts of all suffixes, in their order; by doubling, n log^2 n."""
    rank: Whole = np.unique(tokens, return_inverse=True)[1].astype(np.int64)
    size, width = len(tokens), 1
    while True:
        after = np.full(size, -1, dtype=np.int64)
        after[: max(size - width, 0)] = rank[width:]
        order: Whole = np.lexsort((after, rank)).astype(np.int64)
        if size < 2:
            return order
        first, second = rank[order], after[order]
        rank = rank.copy()
        rank[order] = np.concatenate([[0], np.cumsum((first[1:] != first[:-1]) | (second[1:] != second[:-1]))])
        width *= 2
        if rank[order[-1]] == size - 1 or width >= 2 * size:
            return order


def common_prefixes(tokens: Whole, order: Whole) -> list[int]:
    """For each suffix, the length of what it shares with the one before in order (Kasai et al., CPM 2001)."""
    sequence, size = tokens.tolist(), len(tokens)
    rank = np.argsort(order).tolist()
    shared, height = [0] * size, 0
    for start in range(size):
        if rank[start] == 0:
            height = 0
            continue
        before = int(order[rank[start] - 1])
        while max(start, before) + height < size and sequence[start + height] == sequence[before + height]:
            height += 1
        shared[rank[start]] = height
        height = max(height - 1, 0)
    return shared


def intervals(shared: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Maximal runs of suffixes that begin alike: length of the beginning, first, one past the last."""
    open_runs: list[tuple[int, int]] = []
    for place, height in enumerate((*shared[1:], 0), start=1):
        low = place - 1
        while open_runs and open_runs[-1][0] > height:
            length, low = open_runs.pop()
            yield length, low, place
        if height and (not open_runs or open_runs[-1][0] < height):
            open_runs.append((height, low))
