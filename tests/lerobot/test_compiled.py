"""What LeRobot compiled is put aside while `bac` is on, and comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import bac
import lerobot_policy_bac as entry
from bac.caching.interceptors.patch import interceptors
from bac.lerobot import trial, uncompiled
from tests.lerobot import models

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of PyTorch's compiler

POLICIES: dict[str, Callable[..., nn.Module]] = {"pi0": partial(models.pi, name="pi0"), "smolvla": models.smolvla}


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`torch.compile` traces and generates no code; replay pays."""
    precision = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(trial, "_GAIN", float("inf"))
    yield
    torch.set_float32_matmul_precision(precision)


@pytest.fixture(params=POLICIES)
def make(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    return POLICIES[request.param]


def chunks(policy: nn.Module) -> list[Tensor]:
    torch.manual_seed(0)
    with torch.inference_mode():
        return [policy.predict_action_chunk(models.observation(1)) for _ in range(3)]


def are_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_a_compiled_sampler_is_put_aside_and_the_policy_is_replayed(make, caplog):
    policy = make(compile_model=True, compile_mode="default")
    compiled = policy.model.sample_actions
    with caplog.at_level(logging.INFO):
        entry._replay_as_it_is(policy)
        found = chunks(policy)
    assert are_equal(found, chunks(make()))
    assert len(bac.describe(policy).plans) == 1
    assert f"bac: {type(policy).__name__}: its compiled sample_actions is put aside while bac is on" in caplog.text
    bac.unwrap(policy)
    assert policy.model.sample_actions is compiled


def test_without_a_gain_the_compiled_sampler_is_back_from_the_first_chunk_on(make, monkeypatch):
    monkeypatch.setattr(trial, "_GAIN", 0.0)
    policy = make(compile_model=True, compile_mode="default")
    compiled = policy.model.sample_actions
    entry._replay_as_it_is(policy)
    assert are_equal(chunks(policy), chunks(make()))
    assert policy.model.sample_actions is compiled and not list(interceptors(policy))


def test_a_refused_policy_keeps_its_compiled_sampler(make):
    policy = make(compile_model=True, compile_mode="default")
    before = dict(vars(policy.model))
    with pytest.raises(ZeroDivisionError), uncompiled(policy):
        raise ZeroDivisionError
    assert vars(policy.model) == before


def test_a_caller_that_is_compiled_afterwards_calls_the_plan(make):
    """`lerobot-rollout --use_torch_compile` compiles `predict_action_chunk` of what it has loaded."""
    policy = entry._replay_as_it_is(make(compile_model=True, compile_mode="default"))
    vars(policy)["predict_action_chunk"] = torch.compile(policy.predict_action_chunk)
    assert are_equal(chunks(policy), chunks(make()))
    assert bac.describe(policy).num_replays >= 3 and not bac.describe(policy).refusals


def test_a_compiled_denoiser_stays_and_one_line_says_so(caplog):
    policy = models.diffusion()
    policy.diffusion.unet = torch.compile(policy.diffusion.unet)
    with caplog.at_level(logging.INFO):
        entry._replay_as_it_is(policy)
    assert not list(interceptors(policy))
    assert "bac: DiffusionPolicy runs as it is: its denoiser is compiled" in caplog.text
