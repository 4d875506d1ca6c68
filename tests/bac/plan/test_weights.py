"""Every way in which a weight can change is noticed, with PyTorch's words in memory and without."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.plan import tensor_words
from bac.plan.weights import Weights


@pytest.fixture(params=[True, False], ids=["words in memory", "one after the other"])
def _ways(request, monkeypatch):
    if request.param and not tensor_words.AVAILABLE:
        pytest.skip("this PyTorch keeps its words elsewhere")
    monkeypatch.setattr(tensor_words, "AVAILABLE", request.param)


def test_this_pytorch_shows_its_words():
    """Where it does not, checks take three times as long, and this test says so."""
    assert tensor_words.AVAILABLE


def test_the_words_are_found_whatever_lies_in_those_that_a_tensor_does_not_use():
    torch.manual_seed(0)
    for _ in range(300):
        shapes = torch.randint(1, 4, (9, 5)).tolist()
        used = [torch.zeros(shape) for shape in shapes] + [torch.zeros(100)[37:]]
        del used[::2]
        assert tensor_words.find() == tensor_words.LAYOUT


def weight(*shape, dtype=torch.float32):
    return torch.nn.Parameter(torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype), requires_grad=False)


@pytest.mark.usefixtures("_ways")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda w: w.add_(1), "written to"),
        (lambda w: w.view(-1)[:1].zero_(), "written to"),
        (lambda w: w.detach()[3:].zero_(), "written to"),
        (lambda w: w.data.mul_(2), "written to"),
        (lambda w: setattr(w, "data", w.data.clone()), "moved"),
        (lambda w: setattr(w, "data", w.data[1:]), "moved"),
        (lambda w: setattr(w, "data", w.data.double()), "moved"),
        (lambda w: setattr(w, "data", w.data.t()), "moved"),
    ],
)
@pytest.mark.parametrize("shape", [(4, 2), (40, 30)])
def test_a_change_is_noticed_at_once(change, what, shape):
    other, changed = weight(*shape), weight(*shape)
    weights = Weights([other, changed])
    assert weights.difference() is None
    change(changed)
    assert weights.difference() == f"weights were {what}"
    assert not weights.are_same()


@pytest.mark.usefixtures("_ways")
def test_a_weight_that_is_swapped_for_another_is_noticed_though_the_old_one_lives_on():
    weights = Weights([changed := weight(40, 30)])
    other = torch.nn.Parameter(changed.detach() * 2, requires_grad=False)
    torch.utils.swap_tensors(changed, other)
    assert weights.difference() == "weights were moved"
    del other
    assert not weights.are_same()


@pytest.mark.usefixtures("_ways")
@pytest.mark.parametrize(
    "layout", [lambda w: w.t(), lambda w: w[::2], lambda w: w[:, 1:], lambda w: w.expand(3, 40, 30)]
)
def test_a_write_past_the_count_is_noticed_whatever_the_strides(layout):
    memory = torch.zeros(40, 30)
    weights = Weights([layout(memory)])
    assert all(weights.difference() is None for _ in range(16))
    memory.data.add_(1)
    assert weights.difference() == "weights were written to"


@pytest.mark.usefixtures("_ways")
def test_memory_that_was_given_back_is_not_looked_at():
    """As FSDP does between two calls."""
    weights = Weights([changed := weight(100, 100)])
    changed.untyped_storage().resize_(0)
    assert weights.difference() == "weights were moved"


@pytest.mark.usefixtures("_ways")
def test_what_only_reads_is_no_change():
    matrix = torch.nn.Parameter(torch.randn(8, 8))
    weights = Weights([matrix])
    (torch.randn(3, 8) @ matrix).sum().backward()
    matrix.requires_grad_(False)
    _ = matrix.detach().clone(), matrix.view(-1), str(matrix), hash(matrix)
    assert weights.difference() is None
    assert weights.are_same()


@pytest.mark.usefixtures("_ways")
def test_weights_without_a_count_of_writes_are_compared_by_their_numbers():
    with torch.inference_mode():
        made = torch.zeros(64, 64)
    weights = Weights([made])
    assert weights.difference() is None
    with torch.inference_mode():
        made.add_(1)
    assert weights.difference() == "weights were written to"


@settings(max_examples=60)
@given(
    st.integers(1, 3000), st.integers(0, 10), st.sampled_from([torch.float64, torch.float32, torch.float16, torch.int8])
)
def test_a_write_past_the_count_to_a_16th_is_noticed_within_16_chunks(length, offset, dtype):
    """Of a weight at whatever place in memory. One spot in each 32nd is compared, at its first cache line."""
    memory = torch.zeros(offset + length, dtype=dtype)
    part = memory[offset:]
    weights = Weights([part])
    written = torch.zeros(offset + length, dtype=torch.bool)
    written[offset : offset + max(length // 16, 64)] = True
    part.data.masked_fill_(written[offset:], 1)
    assert any(weights.difference() for _ in range(16))


def test_neighbours_in_memory_are_not_compared():
    memory = torch.zeros(300)
    weights = Weights([memory[100:200]])
    memory.data[:98] = 1
    memory.data[202:] = 1
    assert all(weights.difference() is None for _ in range(16))


def test_a_weight_that_is_gone_is_still_safe_to_compare():
    """What is compared is kept in use."""
    kept = weight(100, 100)
    weights = Weights([kept])
    kept.data = torch.zeros(1)
    del kept
    torch.zeros(100, 100).fill_(3)
    assert weights.difference() == "weights were moved"
