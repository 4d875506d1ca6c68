"""Sublayers of few rows as one operator in C++, against their composition of PyTorch's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bac.plan.packed import kernels, library, pack, plain
from tests.bac.plan.runs import numbers

WIDTH, HEADS, HIDDEN = 12, 3, 22

sizes = st.integers(1, 32), st.integers(1, 9), st.integers(1, 5), st.integers(1, 70)


def norm_of(width: int) -> tuple[Tensor, Tensor, float]:
    return numbers(width, seed=1), numbers(width, seed=2), 1e-5


def weights(depth: int, features: int, seed: int) -> tuple[Tensor, Tensor]:
    return numbers(depth, features, seed=seed, size=depth**-0.5), numbers(features, seed=seed)


def rest_of(x: Tensor, with_rest: bool) -> tuple[Tensor, bool]:
    """Another part of the sum: as many numbers as the rows if the feature holds it, one row otherwise."""
    rows, width = x.shape[:-1].numel(), x.shape[-1]
    return (numbers(rows, width, seed=6) if with_rest else numbers(width, seed=6)), with_rest


def check(operator: Any, reference: Callable[..., Any], arguments: tuple[Any, ...], packed: tuple[int, ...]) -> None:
    """Compare an operator with its reference in float64."""
    made = operator(*(pack(a) if place in packed else a for place, a in enumerate(arguments)))
    expected = reference(*(a.double() if isinstance(a, Tensor) else a for a in arguments))
    for result, value in zip(*((r if isinstance(r, tuple) else (r,)) for r in (made, expected)), strict=True):
        assert result.shape == value.shape
        torch.testing.assert_close(result, value.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)
@given(*sizes, st.booleans(), st.booleans())
def test_a_feed_forward_sublayer_is_its_plain_composition(rows, heads, size, hidden, by_tanh, with_rest):
    width = heads * size
    arguments = (
        numbers(1, rows, width),
        *norm_of(width),
        *weights(width, hidden, 3),
        *weights(hidden, width, 4),
        by_tanh,
    )
    arguments += rest_of(arguments[0], with_rest)
    check(kernels().feed_forward, plain.feed_forward, arguments, (4, 6))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)
@given(*sizes[:3], st.booleans())
def test_a_self_attention_sublayer_is_its_plain_composition(rows, heads, size, is_causal):
    width = heads * size
    mask = (
        numbers(rows, rows).tril()
        if not is_causal
        else numbers(rows, rows).masked_fill(torch.ones(rows, rows, dtype=torch.bool).triu(1), -torch.inf)
    )
    inner, outer = weights(width, 3 * width, 3), weights(width, width, 4)
    arguments = numbers(rows, 1, width), *norm_of(width), *inner, mask, *outer, heads, 0.4
    arguments += rest_of(arguments[0], not is_causal)
    check(kernels().self_attention, plain.self_attention, arguments, (4, 7))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)
@given(*sizes[:3], st.integers(1, 7), st.booleans())
def test_an_absorbed_cross_attention_is_its_plain_composition(rows, heads, width, tokens, is_for_all):
    keys = numbers(heads * tokens, width + 1, seed=3)[:, :width]  # with a stride, as the pass hands it over
    offset = numbers(1 if is_for_all else rows, heads * tokens, seed=5)
    values, bias = weights(heads * tokens, width, 4)
    arguments = numbers(1, rows, width), *norm_of(width), keys, offset, values, bias, heads
    arguments += rest_of(arguments[0], is_for_all)
    check(kernels().cross_attention, plain.cross_attention, arguments, ())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)
@given(*sizes)
def test_a_product_after_a_norm_is_its_plain_composition(rows, heads, size, features):
    width = heads * size
    check(
        kernels().norm_product,
        plain.norm_product,
        (numbers(rows, width), *norm_of(width), *weights(width, features, 3)),
        (4,),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_gelu_keeps_its_tails():
    x = torch.tensor([-1e4, -30.0, -5.0, -1e-3, 0.0, 1e-3, 5.0, 1e4, *(8 * [0.5])])
    one, none = torch.eye(16), torch.zeros(16)
    for by_tanh, kind in ((False, "none"), (True, "tanh")):
        # The norm's weight is zero, its shift is x, and both products change nothing.
        given = (torch.zeros(2, 16), none, x, 1e-5, pack(one), none, pack(one), none, by_tanh, none, False)
        made, _ = kernels().feed_forward(*given)
        torch.testing.assert_close(made[0], F.gelu(x, approximate=kind), rtol=1e-6, atol=5e-7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("place", "wrong", "rule"),
    [
        (0, torch.ones(33, WIDTH), "up to 32 rows"),
        (0, torch.ones(2, WIDTH).double(), "float32"),
        (1, torch.ones(WIDTH - 1), "norm's weight"),
        (2, torch.ones(WIDTH + 1), "norm's shift"),
        (4, torch.ones(1, WIDTH, 16), "not packed"),
        (6, torch.ones(1, WIDTH, 16), "not packed"),
        (7, torch.ones(1), "last bias"),
        (9, torch.ones(WIDTH + 1), "the rest must be"),
        *((place, torch.ones(WIDTH).half(), "float32") for place in (1, 2, 7, 9)),
        (4, torch.ones(2, WIDTH, 16).half(), "float32"),
        (5, torch.ones(HIDDEN).half(), "float32"),
        (6, torch.ones(1, HIDDEN, 16).half(), "float32"),
    ],
)
def test_an_operator_refuses_what_does_not_fit(place, wrong, rule):
    up, down = weights(WIDTH, HIDDEN, 3), weights(HIDDEN, WIDTH, 4)
    arguments = [
        numbers(2, WIDTH),
        *norm_of(WIDTH),
        pack(up[0]),
        up[1],
        pack(down[0]),
        down[1],
        False,
        torch.zeros(WIDTH),
        False,
    ]
    arguments[place] = wrong
    with pytest.raises(RuntimeError, match=rule):
        kernels().feed_forward(*arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_without_hidden_units_the_feature_is_the_bias():
    x, bias, none = numbers(2, WIDTH), numbers(WIDTH, seed=4), torch.zeros(WIDTH)
    up, down = pack(torch.empty(WIDTH, 0)), pack(torch.empty(0, WIDTH))
    feature, stream = kernels().feed_forward(x, *norm_of(WIDTH), up, torch.empty(0), down, bias, False, none, False)
    torch.testing.assert_close(feature, bias.expand(2, WIDTH))
    torch.testing.assert_close(stream, x + bias)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("place", "wrong", "rule"), [(6, torch.ones(3), "mask"), (9, 5, "heads")])
def test_attention_refuses_what_does_not_fit(place, wrong, rule):
    inner, outer = weights(WIDTH, 3 * WIDTH, 3), weights(WIDTH, WIDTH, 4)
    mask = torch.zeros(2, 2)
    arguments = [
        numbers(2, WIDTH),
        *norm_of(WIDTH),
        pack(inner[0]),
        inner[1],
        mask,
        pack(outer[0]),
        outer[1],
        HEADS,
        1.0,
    ]
    arguments[place] = wrong
    with pytest.raises(RuntimeError, match=rule):
        kernels().self_attention(*arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(st.integers(1, 40), st.integers(1, 3))
def test_the_operator_adds_tensors_and_single_numbers(size, num_tensors):
    parts = [numbers(3, size, seed=seed) if seed <= num_tensors else numbers(1, seed=seed) for seed in range(4)]
    expected = parts[0] + parts[1] + parts[2] + parts[3]
    torch.testing.assert_close(kernels().add_four(*parts), expected)
    with pytest.raises(RuntimeError, match="must be as a"):
        kernels().add_four(torch.ones(3), torch.ones(2), torch.ones(3), torch.ones(3))


def test_the_source_is_one_text_that_includes_no_file_of_ours():
    text = library.source()
    assert '#include "' not in text
    assert text.index("struct Normed") < text.index("packed_norm_product") < text.index("packed_self_attention")
