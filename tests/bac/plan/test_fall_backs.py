"""Every fall-back from replay gives its reason, once."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import bac
import bac.plan
from bac.caching.block import BlockKind
from bac.caching.interceptors.patch import stacked
from bac.plan.executor import Replayer
from tests.bac.models import TickPolicy
from tests.bac.plan.runs import FIRST
from tests.bac.plan.test_guard import Sum, chunk
from tests.policies.models import observations, small_policy


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


SCRIPTED = "is compiled by TorchScript, where no change can be seen; use the module it was made of"
PACKED = "holds weights that PyTorch packed"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("compiled", "reason"),
    [
        (lambda module: torch.jit.script(module), f"Sum.act {SCRIPTED}"),
        (lambda module: nn.Sequential(torch.jit.trace(module, torch.ones(1, 1))), f"Sum.act.0 {SCRIPTED}"),
        (lambda module: torch.ao.quantization.quantize_dynamic(nn.Sequential(module)), f"packed_params {PACKED}"),
    ],
    ids=["script", "trace", "quantize_dynamic"],
)
def test_a_module_whose_inside_cannot_be_seen_is_named_with_what_to_do(compiled, reason):
    policy = Sum()
    policy.act = compiled(nn.Linear(1, 1).eval())
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    with pytest.warns(RuntimeWarning, match=reason) as caught:
        assert chunk(policy) == chunk(policy)
    assert len(caught) == 1 and "Error" not in str(caught[0].message)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), ImportError("no sympy"), ValueError()])
def test_a_compiler_that_fails_in_a_way_of_its_own_leaves_a_plan_that_is_not_compiled(monkeypatch, error):
    def failing(*_):
        raise error

    monkeypatch.setattr("bac.plan.inductor._compile", failing)
    policy = small_policy(n_layer=1)
    policy.diffusion.use_solver("DDIM", 4)
    bac.wrap(policy, replay=bac.Replay(exact=False, compile=True, record="ahead"))
    plan = bac.plan.record(policy, observations(1))
    assert f"Inductor: {str(error) or 'ValueError'}" in plan.skipped


def test_of_many_refused_shapes_the_least_recently_met_are_forgotten(monkeypatch):
    monkeypatch.setattr("bac.plan.executor._REMEMBERED", 3)
    policy = TickPolicy(num_steps=2)
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0, 1)}), blocks=policy.blocks(), replay=FIRST)
    (replayer,) = (interceptor for interceptor in stacked(policy) if isinstance(interceptor, Replayer))

    def met(size):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            policy.predict_action_chunk({"obs": torch.zeros(size, 1)})

    for size in range(1, 30):
        met(1)
        met(size)
        assert len(replayer.refusals) <= 3
    runs_before = policy.ticks[0].num_computed
    met(1)
    assert policy.ticks[0].num_computed == runs_before + 2  # one run of two steps: nothing was recorded
