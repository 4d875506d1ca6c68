"""What a run calls, and the classes of what it calls: a plan is used only while they are as they were."""

from __future__ import annotations

import functools
import types

import pytest
import torch
from torch import Tensor, nn

import bac
import bac.plan
from bac.caching.block import BlockKind
from bac.plan.tags import AVAILABLE
from tests.bac.plan.runs import FIRST


class Scaled:
    """An object with a method that an instance of a module is given as its ``forward``."""

    def __init__(self) -> None:
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def scaled_by(settings: types.SimpleNamespace, x: Tensor) -> Tensor:
    return settings.scale * x


def with_default(x: Tensor, scale: float = 1.0, *, shift: float = 0.0) -> Tensor:
    return with_default.gain * scale * x + shift


with_default.gain = 1.0


class Twice(nn.Identity):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Calls(nn.Module):
    """Its action is its observation, through everything that it calls."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.inner, self.other = nn.Identity(), nn.Identity(), Scaled()
        self.inner.forward = self.other.forward
        self.settings = types.SimpleNamespace(scale=1.0)
        self.part = functools.partial(scaled_by, self.settings)
        self.keyword = functools.partial(with_default, scale=1.0)
        self.plain, self.unregistered = with_default, [nn.Identity()]
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.unregistered[0](self.inner(self.block(batch["obs"])))
        return self.plain(self.keyword(self.part(x)))


def chunk(policy: nn.Module) -> float:
    with torch.no_grad():
        return policy.predict_action_chunk({"obs": torch.ones(1, 1)}).item()


@pytest.fixture(params=[True, False], ids=["tags", "visits"], autouse=True)
def tags(request, monkeypatch):
    """Everything holds with Python's tags, and on a Python without them."""
    if request.param and not AVAILABLE:
        pytest.skip("this Python has no tags")
    monkeypatch.setattr("bac.plan.watch.AVAILABLE", request.param)


@pytest.fixture
def policy(tags):
    policy = Calls()
    bac.wrap(policy, blocks=[bac.Block("block", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    assert [chunk(policy) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert len(bac.plan.plans(policy)) == 1
    return policy


def change_class(policy, _):
    policy.block.__class__ = Twice


def change_class_of_an_object(policy, monkeypatch):
    class Doubled(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    policy.other.__class__ = Doubled
    policy.inner.forward = policy.other.forward


def change_owner_of_a_method(policy, _):
    policy.other.scale = 2.0


def change_argument_of_a_partial(policy, _):
    policy.settings.scale = 2.0


def hook_a_module_in_a_list(policy, _):
    policy.unregistered[0].register_forward_hook(lambda module, inputs, output: 2 * output)


def change_attribute_of_a_function(_, monkeypatch):
    monkeypatch.setattr(with_default, "gain", 2**0.5)


@pytest.mark.parametrize(
    "change",
    [
        change_class,
        change_class_of_an_object,
        change_owner_of_a_method,
        change_argument_of_a_partial,
        change_attribute_of_a_function,
        hook_a_module_in_a_list,
    ],
)
def test_a_change_is_seen_by_the_next_chunk(policy, monkeypatch, change):
    change(policy, monkeypatch)
    assert [chunk(policy) for _ in range(3)] == pytest.approx([2.0] * 3)


@pytest.mark.parametrize(("name", "value"), [("__defaults__", (2.0,)), ("__kwdefaults__", {"shift": 0.5})])
def test_defaults_of_a_function_are_seen_within_eight_chunks(policy, monkeypatch, name, value):
    monkeypatch.setattr(with_default, name, value)
    assert [chunk(policy) for _ in range(9)][-1] == 2.0
