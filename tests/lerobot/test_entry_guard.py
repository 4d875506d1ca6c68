"""The LeRobot plug-in: a policy beside which a guard lies."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies import factory
from torch import nn

import bac
from bac.errors import RunError, ScheduleError
from bac.guarding import report
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
from tests.lerobot import checkpoints
from tests.lerobot.conftest import Follow
from tests.policies.models import observations, small_policy

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be called when the program ends."""
    calls: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call: calls.append(call))
    return calls


@pytest.fixture
def load(plugged_in: Follow) -> Callable[[Path], nn.Module]:
    plugged_in(DiffusionTransformerPolicy)
    return factory.get_policy_class("diffusion_transformer").from_pretrained


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    small_policy(n_layer=1).save_pretrained(tmp_path)
    return tmp_path


def chunk(policy: nn.Module) -> torch.Tensor:
    return policy.predict_action_chunk(observations(2), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def with_guard(checkpoint: Path) -> Path:
    """A checkpoint with a schedule and a guard beside it that is saved to answer an alarm with the dense policy."""
    checkpoints.put_schedule(checkpoint, small_policy(n_layer=1), 0, 2)
    checkpoints.put_guard(checkpoint, response="dense")
    return checkpoint


def test_a_guard_goes_on_duty_only_if_asked_for(with_guard, load, monkeypatch):
    for unasked in (None, "", "off"):
        if unasked is not None:
            monkeypatch.setenv("BAC_GUARD", unasked)
        with pytest.raises(RunError, match="has no guard"):
            report(load(with_guard))
    monkeypatch.setenv("BAC_GUARD", "on")
    assert report(load(with_guard)).num_chunks == 0


@pytest.mark.parametrize(("asked", "steps"), [("log", (0, 2)), ("denser", (0, 1, 2, 3)), ("dense", range(5))])
def test_after_an_alarm_the_policy_follows_what_was_asked_for(with_guard, load, monkeypatch, asked, steps):
    monkeypatch.setenv("BAC_GUARD", asked)
    policy, by_hand = load(with_guard), small_policy(n_layer=1)
    with pytest.warns(RuntimeWarning, match="drift guard, chunk 1"):
        chunk(policy)
    names = bac.load(with_guard / "bac.json").schedule.block_names
    bac.wrap(by_hand, bac.Schedule(5, dict.fromkeys(names, tuple(steps))), replay=False)
    assert torch.equal(chunk(policy), chunk(by_hand))


def test_what_a_guard_saw_is_logged_at_the_end(with_guard, load, monkeypatch, caplog, at_exit):
    monkeypatch.setenv("BAC_GUARD", "on")
    policy = load(with_guard)
    with caplog.at_level(logging.INFO, logger="lerobot_policy_bac"):
        ((tell, *what),) = at_exit
        caplog.clear()  # of what was logged when it was loaded
        tell(*what)
        assert "chunks" not in caplog.text  # nothing was seen
        with pytest.warns(RuntimeWarning, match="drift guard"):
            chunk(policy), chunk(policy)
        tell(*what)
    assert "DiffusionTransformerPolicy: Guard: 2 chunks, 1 probed; 18 of 18 looks above their limit" in caplog.text
    assert caplog.records[-1].levelname == "WARNING"


def test_a_guard_that_cannot_be_put_on_duty_is_an_error(with_guard, load, monkeypatch):
    monkeypatch.setenv("BAC_GUARD", "panic")
    with pytest.raises(ScheduleError, match="BAC_GUARD: must be on, log, denser, dense or off, got panic"):
        load(with_guard)
    monkeypatch.setenv("BAC_GUARD", "log")
    (with_guard / "guard.json").unlink()
    with pytest.raises(ScheduleError, match=r"there is no .*guard\.json; make one: bac guard --policy-path"):
        load(with_guard)


def test_a_guard_without_a_schedule_is_a_warning(checkpoint, load, monkeypatch, caplog):
    monkeypatch.setenv("BAC_GUARD", "dense")
    load(checkpoint)
    assert "nothing is guarded" in caplog.text
