"""Absorbed cross-attention and closed-form steps: the same numbers, up to rounding, from other operators."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from bac.plan.passes.absorb import absorb_projections
from bac.plan.passes.closed import close_reused_steps
from bac.plan.passes.cse import share_equal
from bac.plan.passes.dce import drop_dead_code
from bac.plan.passes.fold import fold_constants
from bac.plan.passes.split import split_tokens_anyway
from bac.plan.program import interpret
from tests.bac.plan.runs import names, taped

WIDTH, HEADS, QUERIES = 32, 2, 5


def cross_attention(bias: bool) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True).eval()
    if bias:
        nn.init.normal_(module.in_proj_bias)
    return module


def read_twice(module, mask, batch_size=1):
    """Two steps read a memory of a constant time token and two tokens of an observation."""
    times = torch.randn(2, batch_size, 1, WIDTH)

    def run(x, observation):
        for time in times:
            memory = torch.cat([time, observation], dim=1)
            x = x + module(x, memory, memory, attn_mask=mask, need_weights=False)[0]
        return x

    x, observation = torch.randn(batch_size, QUERIES, WIDTH), torch.randn(batch_size, 2, WIDTH)
    constants = (*times, *module.parameters(), *([] if mask is None else [mask]))
    program = fold_constants(share_equal(taped(run, x, observation, constants=constants)))
    return share_equal(split_tokens_anyway(program)), (x, observation)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "mask",
    [None, torch.ones(QUERIES, 3).tril(1).log(), ~torch.ones(QUERIES, 3).tril(1).bool()],
    ids=["none", "added", "bool"],
)
def test_a_memory_of_few_tokens_absorbs_both_projections(bias, mask):
    program, leaves = read_twice(cross_attention(bias), mask)
    absorbed = drop_dead_code(absorb_projections(program))
    assert names(absorbed).count("scaled_dot_product_attention") == 0
    assert names(absorbed).count("bmm") == 1, "the observation's factors serve both steps"
    torch.testing.assert_close(interpret(absorbed, leaves)[0], interpret(program, leaves)[0], rtol=1e-5, atol=1e-5)


def test_a_batch_is_left_alone():
    program, _ = read_twice(cross_attention(True), None, batch_size=2)
    assert names(absorb_projections(program)) == names(program)


def test_self_attention_is_left_alone():
    module = cross_attention(True)

    def run(x):
        return module(x, x, x, need_weights=False)[0]

    program = taped(run, torch.randn(1, QUERIES, WIDTH), constants=tuple(module.parameters()))
    assert names(absorb_projections(program)) == names(program)


def test_a_memory_that_changes_from_step_to_step_is_left_alone():
    module = cross_attention(True)

    def run(x, observation):
        for _ in range(2):
            x = x + module(x, observation + x[:, :2], observation + x[:, :2], need_weights=False)[0]
        return x

    leaves = torch.randn(1, QUERIES, WIDTH), torch.randn(1, 2, WIDTH)
    program = taped(run, *leaves, constants=tuple(module.parameters()))
    assert names(absorb_projections(program)) == names(program)


def denoiser(norm: nn.LayerNorm, bias: bool):
    torch.manual_seed(1)
    embedding, head = nn.Linear(3, WIDTH, bias=bias), nn.Linear(WIDTH, 4, bias=bias)

    def run(x, stored, num_steps):
        for _ in range(num_steps):
            x = x - 0.1 * head(norm(embedding(x) + stored))[..., :3]
        return x

    constants = (*embedding.parameters(), *head.parameters(), *norm.parameters())
    return run, constants


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_reused_steps_are_evaluated_without_the_width(bias, affine, batch_size):
    norm = nn.LayerNorm(WIDTH, elementwise_affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    run, constants = denoiser(norm, bias)
    leaves = torch.randn(batch_size, QUERIES, 3), torch.randn(batch_size, QUERIES, WIDTH), 6
    program = taped(run, *leaves, constants=constants)
    closed = drop_dead_code(close_reused_steps(program))
    assert names(closed).count("layer_norm") == 0
    assert names(closed).count("var") == 1, "one stored sum, one variance"
    torch.testing.assert_close(interpret(closed, leaves)[0], interpret(program, leaves)[0], rtol=1e-5, atol=1e-5)


def test_a_stored_sum_that_serves_two_steps_is_not_worth_it():
    run, constants = denoiser(nn.LayerNorm(WIDTH), True)
    leaves = torch.randn(1, QUERIES, 3), torch.randn(1, QUERIES, WIDTH), 2
    program = taped(run, *leaves, constants=constants)
    assert names(close_reused_steps(program)) == names(program)


def test_a_norm_over_something_else_is_left_alone():
    weight = torch.randn(WIDTH, WIDTH)

    def run(x):
        for _ in range(4):
            x = F.linear(F.layer_norm(F.linear(x, weight) + x, (WIDTH,)), weight)
        return x

    program = taped(run, torch.randn(1, QUERIES, WIDTH), constants=(weight,))
    assert names(close_reused_steps(program)) == names(program)
