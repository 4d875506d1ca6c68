"""Observation batches taken apart and put together again."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bac.tuning.batches import in_parts, merged, num_rows, rows_of


def batch(count):
    rows = torch.arange(3 * count).reshape(count, 3)
    return {"obs": rows, "words": [f"word {row}" for row in range(count)], "task": "push"}


def test_some_rows_are_taken_of_what_has_rows():
    found = rows_of(batch(5), slice(1, None, 2))
    assert found["obs"].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert (found["words"], found["task"], num_rows(found)) == (["word 1", "word 3"], "push", 2)


@given(st.integers(1, 13), st.integers(1, 7))
def test_parts_put_together_are_the_batch(count, size):
    whole = batch(count)
    parts = in_parts(whole, size)
    assert [num_rows(part) for part in parts] == [size] * (count // size) + ([count % size] if count % size else [])
    again = merged(parts)
    assert torch.equal(again["obs"], whole["obs"])
    assert (again["words"], again["task"]) == (whole["words"], "push")
