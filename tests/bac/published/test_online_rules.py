"""Online rules on signals whose answer is mental arithmetic."""

from __future__ import annotations

import pytest
import torch

from bac.caching.block import Block, BlockKind
from bac.errors import ScheduleError
from bac.published import AccumulatedChange, BlockChange, Codebook, FirstBlock

BLOCKS = [Block(f"b{i}", BlockKind.FEED_FORWARD, layer) for i, layer in enumerate((0, 0, 1, 1))]


def trace(rule, signal, blocks=BLOCKS):
    """Which blocks update at which steps, `[K][N]`, when block i's input and output at step t is ``signal(t)``."""
    decider, rows = rule.begin(blocks), []
    for step in range(rule.num_steps):
        row = []
        for index in range(len(blocks)):
            x = torch.tensor([float(signal(step))])
            row.append(step == 0 or decider.updates(index, step, x))
            if row[-1]:
                decider.computed(index, step, x, x)
        rows.append(row)
    return rows


def full_steps(rule, signal):
    return [step for step, row in enumerate(trace(rule, signal)) if all(row)]


def test_first_block_compares_with_the_last_full_step():
    signal = {0: 10, 1: 12, 2: 13, 3: 15, 4: 15}.get
    # Against 10: 20 %, 30 % (now 13 is the reference), 15 %, 15 %.
    rule = FirstBlock(5, 0.25)
    assert full_steps(rule, signal) == [0, 2]
    assert all(row[:2] == [True, True] for row in trace(rule, signal))
    assert trace(rule, signal)[1] == [True, True, False, False]


def test_accumulated_change_adds_up_steps_and_starts_anew():
    # Always 10 % up: 0.1, 0.2 -> update, 0.1, 0.2 -> update, last.
    assert full_steps(AccumulatedChange(6, 0.199), lambda t: 1.1**t) == [0, 2, 4, 5]
    assert full_steps(AccumulatedChange(6, 0.1999, (0.5, 0.0)), lambda t: 1.1**t) == [0, 4, 5]


def test_accumulated_change_compares_neighbours_also_where_it_reuses():
    # 1, 2, 1, 2: every step is 100 % or 50 % from its neighbour, though step 2 equals step 0.
    assert full_steps(AccumulatedChange(5, 1.4), {0: 1, 1: 2, 2: 1, 3: 2, 4: 2}.get) == [0, 2, 4]


def test_block_change_reuses_for_an_interval_after_a_small_change():
    # 0 -> 1 doubles: keep computing; 1 -> 2 stays: reuse two steps, compute 5, which stayed too, and the last.
    assert full_steps(BlockChange(9, 0.5, 2), lambda t: min(t, 1) + 1.0) == [0, 1, 2, 5, 8]


def test_the_codebook_turns_rates_into_intervals():
    # A line: at 1 the rate is 1, above the book; at 2 it is 1/2, at 4 1/3 a step, at 6 1/5, at 10 1/7; then the last.
    book = ((0.3, 4), (0.6, 2))
    assert full_steps(Codebook(12, book), lambda t: t + 1.0) == [0, 1, 2, 4, 6, 10, 11]


def test_what_cannot_be_is_refused():
    with pytest.raises(ScheduleError, match="num_steps: must be a whole number"):
        FirstBlock(0, 0.1)
    with pytest.raises(ScheduleError, match="interval: must be at least 1 step, got 0"):
        BlockChange(5, 0.1, 0)
    with pytest.raises(ScheduleError, match="codebook: rates must increase"):
        Codebook(5, ((0.2, 2), (0.1, 3)))
