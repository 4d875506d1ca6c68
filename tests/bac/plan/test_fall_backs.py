"""Every fall-back from replay gives its reason, once."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import bac
import bac.plan
from bac.caching.block import BlockKind
from tests.bac.plan.runs import FIRST
from tests.bac.plan.test_guard import Sum, chunk


class Opaque:
    """An argument that cannot be hashed."""

    __hash__ = None


class Taking(Sum):
    def predict_action_chunk(self, batch, extra=None):
        return super().predict_action_chunk(batch)


def predict_with(policy, extra):
    with torch.no_grad():
        policy.predict_action_chunk({"obs": torch.ones(1, 1)}, extra)


class Doubling(TorchFunctionMode):
    """Doubles what linear layers return."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return 2 * result if func is nn.functional.linear else result


def under_a_mode(policy):
    with Doubling():
        assert chunk(policy) == 10
    assert chunk(policy) == 6


def hooked(policy):
    policy.act.register_forward_hook(lambda *_: None)
    chunk(policy)


def with_gradients(policy):
    policy.predict_action_chunk({"obs": torch.ones(1, 1)})


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda policy: predict_with(policy, Opaque()), "an argument of the sampler cannot be compared"),
        (under_a_mode, "a mode of PyTorch (TorchFunctionMode) is on"),
        (with_gradients, "gradients are enabled; predict under torch.no_grad()"),
        (hooked, "a forward hook watches it; remove the hook to replay"),
    ],
)
def test_every_fall_back_from_replay_gives_its_reason_once(caplog, use, reason):
    policy = Taking()
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    chunk(policy)
    with caplog.at_level("WARNING", logger="bac.plan"):
        use(policy)
        use(policy)
    assert caplog.text.count(reason) == 1
