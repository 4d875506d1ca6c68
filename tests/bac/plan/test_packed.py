"""Products of few rows with packed weights: the operator, the pass that uses it, and a machine without a compiler."""

from __future__ import annotations

import copy
import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bac
import bac.plan
from bac.plan import packed
from bac.plan.packed import Kernels, kernels, library, pack
from bac.plan.passes import layouts, pack_products
from bac.plan.passes import pack as pack_module
from bac.plan.program import interpret
from tests.bac.plan.runs import names, numbers, taped
from tests.bac.plan.test_rolling import interpreted
from tests.policies.models import observations, small_policy

ROWS, DEPTH, FEATURES = 5, 67, 71


def made(policy):
    torch.manual_seed(0)
    with torch.no_grad():
        return policy.predict_action_chunk(observations(1))


@pytest.fixture
def _always(monkeypatch):
    monkeypatch.setattr(pack_module, "is_packed_faster", lambda *_: True)


@pytest.fixture
def _plain(monkeypatch):
    """An operator without a compiler, so that the pass can be tested anywhere."""

    def multiplied(x, weight, added, features):
        depth = weight.shape[1]
        columns = weight.transpose(0, 1).reshape(depth, -1)[:, :features]
        return x @ columns + added

    monkeypatch.setattr(pack_module, "kernels", lambda: Kernels(multiplied))


def test_panels_hold_sixteen_columns_and_the_last_is_filled_with_zeros():
    weight = torch.arange(3 * 18.0).view(3, 18)
    panels = pack(weight)
    assert panels.shape == (2, 3, 16)
    assert torch.equal(panels[0], weight[:, :16])
    assert torch.equal(panels[1, :, :2], weight[:, 16:])
    assert not panels[1, :, 2:].any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)
@given(st.integers(0, 32), st.integers(1, 530), st.integers(1, 70), st.booleans(), st.booleans())
def test_the_operator_multiplies_and_adds(rows, depth, features, is_bias, is_strided):
    x = numbers(rows, 2 * depth)[:, ::2] if is_strided else numbers(1, rows, depth)
    weight, added = numbers(depth, features), numbers(*(() if is_bias else x.shape[:-1]), features)
    result = kernels().product(x, pack(weight), added, features)
    expected = (x.double() @ weight.double() + added.double()).float()
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6 * depth)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_large_addend_does_not_round_the_terms_of_the_product():
    x, weight, added = numbers(ROWS, 256), numbers(256, FEATURES), torch.full((FEATURES,), 1e4)
    error = kernels().product(x, pack(weight), added, FEATURES) - (x.double() @ weight.double() + 1e4)
    assert error.abs().max() <= 1e4 * torch.finfo(torch.float32).eps


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("x", "weight", "added", "rule"),
    [
        ((33, 3), (1, 3, 16), (5,), "up to 32 rows"),
        ((2, 4), (1, 3, 16), (5,), "up to 32 rows"),
        ((2, 3), (1, 3, 4), (5,), "not packed"),
        ((2, 3), (1, 3, 16), (17,), "added must be"),
    ],
)
def test_the_operator_refuses_what_does_not_fit(x, weight, added, rule):
    with pytest.raises(RuntimeError, match=rule):
        kernels().product(torch.ones(x), torch.ones(weight), torch.ones(added), 5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_operator_refuses_other_numbers_than_float32(place):
    arguments = [torch.ones(2, 3), torch.ones(1, 3, 16), torch.ones(5)]
    arguments[place] = arguments[place].half()
    with pytest.raises(RuntimeError, match="float32"):
        kernels().product(*arguments, 5)


@pytest.mark.usefixtures("_always", "_plain")
@pytest.mark.parametrize("bias", [True, False])
def test_products_with_constant_weights_are_packed(bias):
    weight, addend = numbers(FEATURES, DEPTH), numbers(FEATURES, seed=1)

    def run(x, stream):
        first = torch.nn.functional.linear(x, weight, addend if bias else None)
        return torch.addmm(stream, first, weight), torch.mm(first, weight)

    leaves = numbers(ROWS, DEPTH), numbers(ROWS, DEPTH)
    program = taped(run, *leaves, constants=(weight, addend))
    result = pack_products(program)
    assert names(result) == ["multiplied"] * 3
    torch.testing.assert_close(interpret(result, leaves), interpret(program, leaves), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("_always", "_plain")
@pytest.mark.parametrize(
    "run",
    [
        lambda x, w: torch.mm(x[:1], w),
        lambda x, w: torch.mm(x.repeat(7, 1), w),
        lambda x, w: torch.mm(x, w[:, :8]),
        lambda x, w: torch.mm(x.double(), w.double()),
        lambda x, w: torch.addmm(x[:, :1], x, w, alpha=0.5),
        lambda x, w: torch.addmm(x[:, :1], x, w),
    ],
    ids=["one row", "many rows", "small weight", "double", "scaled", "one number for a row"],
)
def test_other_products_stay_as_they_are(run):
    weight = numbers(DEPTH, FEATURES)
    program = taped(lambda x: run(x, weight), numbers(ROWS, DEPTH), constants=(weight,))
    assert "multiplied" not in names(pack_products(program))


def test_a_weight_is_packed_once_for_all_plans():
    weight = numbers(DEPTH, FEATURES)
    first = layouts.in_panels(weight)
    assert layouts.in_panels(weight) is first
    weight.add_(1)
    assert torch.equal(layouts.in_panels(weight), pack(weight))


def compiling(monkeypatch, load):
    """Make `load` the compiler, in a process that has not compiled yet."""
    monkeypatch.setattr(importlib.import_module("torch._inductor.codecache").CppCodeCache, "load", load)
    monkeypatch.setattr(library, "_compiled", cache(library._compiled.__wrapped__))


@pytest.fixture
def _without_compiler(monkeypatch):
    def failing(_, **options):
        raise RuntimeError("no working C++ compiler found\nsearched: g++")

    compiling(monkeypatch, failing)


@pytest.mark.usefixtures("_without_compiler")
def test_without_a_compiler_the_program_stays_and_the_reason_is_kept():
    assert packed.missing() == ""
    weight = numbers(DEPTH, FEATURES)
    program = taped(lambda x: x @ weight, numbers(ROWS, DEPTH), constants=(weight,))
    assert names(pack_products(program)) == names(program)
    assert packed.missing() == "no working C++ compiler found"


def test_threads_that_need_the_operators_at_once_compile_them_once(monkeypatch):
    asked = []

    def load(text, **options):
        asked.append(text)
        time.sleep(0.1)
        raise RuntimeError("no working C++ compiler found")

    compiling(monkeypatch, load)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: kernels(), range(3)))
    assert len(asked) == 1
    assert found[0] is found[1] is found[2]


@pytest.mark.parametrize(("patience", "told"), [(0.01, 1), (60, 0)])
def test_a_slow_compilation_is_told(monkeypatch, capsys, patience, told):
    def load(_, **options):
        time.sleep(0.3)
        raise RuntimeError("no working C++ compiler found")

    compiling(monkeypatch, load)
    monkeypatch.setattr(library, "_PATIENCE", patience)
    kernels()
    assert capsys.readouterr().err.count("once for its cache") == told


def test_of_a_failed_compilation_the_compilers_own_word_is_kept(monkeypatch):
    def load(_, **options):
        raise RuntimeError("C++ compile error\n\nOutput:\n/tmp/a.cpp:3:10: fatal error: library.h: No such file\n  3 |")

    compiling(monkeypatch, load)
    assert kernels().missing == "C++ compile error: library.h: No such file"


@pytest.mark.usefixtures("_without_compiler")
def test_a_plan_says_once_why_its_weights_are_not_packed(monkeypatch):
    monkeypatch.setattr("bac.plan.inductor._compile", lambda piece, caller: interpreted(piece))
    monkeypatch.setattr(pack_module, "_MIN_WEIGHTS", 1)
    policy = small_policy(n_layer=1)
    policy.diffusion.use_solver("DDIM", 4)
    bac.wrap(policy, replay=bac.Replay(exact=False, compile=True, record="ahead"))
    assert bac.plan.record(policy, observations(1)).skipped == ("packed weights: no working C++ compiler found",)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_plan_with_packed_weights_keeps_to_the_tolerance(monkeypatch):
    monkeypatch.setattr(pack_module, "_is_faster", lambda *_: True)
    monkeypatch.setattr(pack_module, "_MIN_WEIGHTS", 1)
    policy = small_policy(n_layer=1)
    policy.diffusion.use_solver("DDIM", 4)
    bac.wrap(policy, replay=bac.Replay(exact=False, compile=True, record="ahead"))
    plan = bac.plan.record(policy, observations(1))
    assert plan.skipped == ()
    assert plan.max_error <= plan.tolerance == 1e-5
    programs = [plan.program, *(i.operator.program for i in plan.program.instructions if i.name == "piece")]
    assert any("packed_product" in names(program) for program in programs)
    torch.testing.assert_close(made(policy), made(copy.deepcopy(policy)), rtol=0, atol=2e-5)  # a copy has no plan
