"""A plan holds under the global settings that it was recorded under."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

import bac.plan
from tests.bac.plan.test_guard import Sum, chunk, wrapped


def flag(read, write, value):
    """Switch a global setting and back."""

    @contextmanager
    def switched():
        before = read()
        write(value)
        try:
            yield
        finally:
            write(before)

    return switched


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(lambda: torch.autocast("cpu", torch.bfloat16), id="autocast-bfloat16"),
        pytest.param(lambda: torch.autocast("cpu", torch.float16), id="autocast-float16"),
        pytest.param(
            flag(torch.are_deterministic_algorithms_enabled, torch._C._set_deterministic_algorithms, True),
            id="deterministic",
        ),
        pytest.param(
            flag(torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, False), id="flash"
        ),
        pytest.param(flag(torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, False), id="math"),
        pytest.param(
            flag(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False),
            id="mha-fast-path",
        ),
    ],
)
def test_a_global_setting_that_changes_numbers_has_plans_of_its_own(setting):
    policy = wrapped()
    chunk(policy)
    (plan,) = bac.plan.plans(policy)
    with setting():
        chunk(policy)
    assert len(bac.plan.plans(policy)) == 2
    chunk(policy)
    assert bac.plan.plans(policy)[-1] is plan


def test_tf32_has_plans_of_its_own():
    matmul = torch.backends.cuda.matmul
    before, plans = matmul.allow_tf32, []
    matmul.allow_tf32 = False
    policy = wrapped()
    try:
        for allowed in (False, True, False):
            matmul.allow_tf32 = allowed
            chunk(policy)
            plans.append(bac.plan.plans(policy)[-1])
    finally:
        matmul.allow_tf32 = before
    assert plans[0] is plans[2] is not plans[1]


def test_autocast_to_float16_after_bfloat16_gives_what_an_unwrapped_policy_gives():
    plain, wrapped_policy = Sum(), wrapped()
    for policy in (plain, wrapped_policy):
        policy._private = 1.00390625 + 1 / 1024  # neither dtype holds it
        policy.adapted.weight.data.fill_(1 + 1 / 512)
    for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            assert [chunk(wrapped_policy) for _ in range(2)] == [chunk(plain)] * 2
