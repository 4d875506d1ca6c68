"""A plan is used only while everything that it baked in is as it was."""

from __future__ import annotations

import collections
import functools
import types
from ast import literal_eval
from contextlib import contextmanager

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import bac
import bac.plan
from bac.caching.block import BlockKind
from bac.plan.places import Place
from bac.plan.tags import AVAILABLE
from tests.bac.plan.runs import FIRST

SCALE = 1.0
LIMITS = {"scale": 1.0}


class Settings:
    """Attributes by slots."""

    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 1.0


class NoiseScheduler:
    """Counts its calls, as a noise scheduler does, and adds one."""

    shift = 1.0

    def __init__(self) -> None:
        self.num_calls = 0
        self.config = {"scale": 1.0}

    def step(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return x + self.shift * self.config["scale"]


class Adapted(nn.Linear):
    """What PEFT's LoRA layer keeps, under PEFT's names."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)
        nn.init.ones_(self.weight)
        self.lora_A = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("one", "two")})
        nn.init.ones_(self.lora_A["one"].weight)
        nn.init.constant_(self.lora_A["two"].weight, 2.0)
        self.scaling = {"one": 1.0, "two": 1.0}
        self._active_adapter = ["one"]
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        if self._disable_adapters or self.merged_adapters:
            return result
        for name in self._active_adapter:
            result = result + self.scaling[name] * self.lora_A[name](x)
        return result


class Same(nn.Module):
    """A block."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 * x


class Sum(nn.Module):
    """Adds up two denoising steps of ``adapted(obs) * every factor + 1``; every factor is 1 at first."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.adapted, self.act, self.block = Adapted(), nn.Identity(), Same()
        self.noise_scheduler = NoiseScheduler()
        self.settings = Settings()
        self.nested = types.SimpleNamespace(options={"scale": [1.0]})
        self.config = OmegaConf.create({"inner": {"scale": 1.0}})
        self.factors = [1.0]
        self.named = {"scale": 1.0}
        self.queue = collections.deque([1.0])
        self._private = 1.0
        self._num_episodes = 0
        self.register_buffer("table", torch.ones(4096))
        self.eval()

    def reset(self) -> None:
        self._num_episodes += 1

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        x = torch.zeros_like(batch["obs"])
        for _ in range(2):
            factor = self.gain * self.settings.scale * self.nested.options["scale"][0] * self.config.inner.scale
            factor *= self.factors[0] * self.named["scale"] * self.queue[0] * self._private * SCALE * LIMITS["scale"]
            added = self.block(self.act(self.adapted(batch["obs"])))
            x = self.noise_scheduler.step(x + factor * self.table.mean() * added)
        return x


def wrapped(replay: bool | bac.Replay = FIRST) -> nn.Module:
    policy = Sum()
    return bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=replay)


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
    policy = wrapped()
    assert [chunk(policy) for _ in range(3)] == [6.0, 6.0, 6.0]
    assert len(bac.plan.plans(policy)) == 1
    return policy


def set_by_name(path: str, value):
    """Set ``policy.path = value``."""

    def change(policy, _):
        owner, _, name = path.rpartition(".")
        setattr(functools.reduce(getattr, owner.split("."), policy) if owner else policy, name, value)

    return change


def set_item(path: str, key, value):
    def change(policy, _):
        functools.reduce(getattr, path.split("."), policy)[key] = value

    return change


def patch(target, name, value):
    """Set a class attribute or a global variable, for the time of a test."""

    def change(_, monkeypatch):
        (monkeypatch.setitem if isinstance(target, dict) else monkeypatch.setattr)(target, name, value)

    return change


def swap_forward(policy, _):
    policy.adapted.forward = lambda x: 4 * x


def swap_step(policy, _):
    policy.noise_scheduler.step = lambda x: x + 3


def swap_code(_, monkeypatch):
    monkeypatch.setattr(NoiseScheduler.step, "__code__", (lambda self, x: x + 3).__code__)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(set_by_name("adapted._disable_adapters", True), 4, id="adapter-disabled"),
        pytest.param(set_by_name("adapted._active_adapter", ["two"]), 8, id="adapter-switched"),
        pytest.param(set_item("adapted._active_adapter", 0, "two"), 8, id="adapter-switched-in-place"),
        pytest.param(set_by_name("adapted._active_adapter", ["one", "two"]), 10, id="adapters-weighted"),
        pytest.param(set_item("adapted.scaling", "one", 2.0), 8, id="adapter-re-scaled"),
        pytest.param(lambda policy, _: policy.adapted.merged_adapters.append("one"), 4, id="adapter-merged"),
        pytest.param(swap_forward, 10, id="forward-of-an-instance"),
        pytest.param(swap_step, 10, id="step-of-an-instance"),
        pytest.param(set_by_name("_private", 2.0), 10, id="private-attribute"),
        pytest.param(set_by_name("settings.scale", 2.0), 10, id="slot"),
        pytest.param(set_item("factors", 0, 2.0), 10, id="item-of-a-list"),
        pytest.param(set_item("named", "scale", 2.0), 10, id="item-of-a-dict"),
        pytest.param(set_item("queue", 0, 2.0), 10, id="item-of-a-deque"),
        pytest.param(lambda policy, _: policy.nested.options["scale"].insert(0, 2.0), 10, id="nested-containers"),
        pytest.param(set_by_name("config.inner.scale", 2.0), 10, id="omegaconf"),
        pytest.param(set_item("noise_scheduler.config", "scale", 2.0), 8, id="config-of-the-noise-scheduler"),
        pytest.param(set_by_name("act", nn.Hardtanh(0, 1)), 4, id="module"),
        pytest.param(patch(Sum, "gain", 2.0), 10, id="class-attribute"),
        pytest.param(patch(NoiseScheduler, "shift", 2.0), 8, id="class-attribute-of-the-noise-scheduler"),
        pytest.param(patch(nn.Identity, "forward", lambda self, x: 2 * x), 10, id="forward-of-a-class"),
        pytest.param(patch(Sum.predict_action_chunk.__globals__, "SCALE", 2.0), 10, id="global-variable"),
        pytest.param(patch(LIMITS, "scale", 2.0), 10, id="item-of-a-global-variable"),
        pytest.param(patch(torch.nn.functional, "linear", lambda x, w, b=None: 3 * x @ w.T), 14, id="torch-function"),
    ],
)  # fmt: skip
def test_a_change_is_seen_by_the_next_chunk(policy, monkeypatch, change, expected):
    change(policy, monkeypatch)
    assert [chunk(policy) for _ in range(3)] == [expected] * 3


def test_the_code_of_a_function_is_seen_within_eight_chunks(policy, monkeypatch):
    swap_code(policy, monkeypatch)
    assert [chunk(policy) for _ in range(9)][-1] == 10


def test_a_new_value_of_equal_number_but_other_type_or_tensor_is_seen(policy):
    weight = policy.adapted.lora_A["one"].weight
    policy.adapted.lora_A["one"].weight = nn.Parameter(weight.detach().clone())
    assert chunk(policy) == 6
    with torch.no_grad():
        policy.adapted.lora_A["one"].weight.mul_(2)
    assert chunk(policy) == 8


@contextmanager
def told(caplog, text):
    caplog.clear()
    with caplog.at_level("INFO", logger="bac.plan"):
        yield
    assert text in caplog.text


def test_an_attribute_that_no_code_names_is_ignored_once_it_changes_again_and_again(policy, caplog):
    with told(caplog, "no code of the run names it"):
        for _ in range(5):
            policy.reset()
            assert chunk(policy) == 6
    (plan,) = bac.plan.plans(policy)
    policy.reset()
    assert chunk(policy) == 6
    assert bac.plan.plans(policy) == (plan,)


@pytest.mark.parametrize("value", ["1.0", "300", "(300, 1.5)", "'a text'"])
def test_an_equal_number_or_text_is_no_change(value):
    policy = Sum()
    policy.setting = literal_eval(value)
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    assert chunk(policy) == 6
    (plan,) = bac.plan.plans(policy)
    for _ in range(3):
        policy.setting = literal_eval(value)
        assert chunk(policy) == 6
    assert bac.plan.plans(policy) == (plan,)


@pytest.mark.parametrize("value", [-0.0, False, 0, None, (0.0,)])
def test_what_merely_equals_a_number_is_a_change(value):
    holder = {"zero": 0.0}
    place = Place.of_mapping("holder", holder, holder)
    holder["zero"] = value
    assert list(place.differences()) == [("zero", "holder.zero was replaced")]


def test_many_attributes_that_no_code_names_are_ignored_together(policy):
    recorded = set()
    for number in range(6):
        for name in range(12):
            setattr(policy, f"_idle{name}", number)
        assert chunk(policy) == 6
        recorded.update(bac.plan.plans(policy))
    assert len(recorded) == 3  # as for a single one


def test_an_attribute_that_the_code_names_is_never_ignored(policy):
    for scale in range(2, 12):
        policy._private = float(scale)
        assert chunk(policy) == 2 * (1 + 2 * scale)


def repeated(change, undo, policy, expected):
    """Make a change and undo it, again and again; a chunk shows both each time."""
    for _ in range(6):
        change(policy)
        assert chunk(policy) == expected
        undo(policy)
        assert chunk(policy) == 6


def test_a_forward_that_is_set_and_removed_again_and_again_is_never_ignored(policy):
    repeated(lambda p: swap_forward(p, None), lambda p: delattr(p.adapted, "forward"), policy, 10)


def test_a_method_that_the_code_names_is_never_ignored(policy):
    repeated(lambda p: swap_step(p, None), lambda p: delattr(p.noise_scheduler, "step"), policy, 10)


def test_items_of_a_list_that_the_code_names_are_never_ignored(policy):
    repeated(lambda p: p.queue.appendleft(2.0), lambda p: p.queue.popleft(), policy, 10)


def test_an_attribute_that_comes_and_goes_is_ignored_and_another_beside_it_is_not(policy, caplog):
    with told(caplog, "Sum._mark was added again and again"):
        repeated(lambda p: setattr(p, "_mark", 1), lambda p: delattr(p, "_mark"), policy, 6)
    (plan,) = bac.plan.plans(policy)
    policy._mark = 2
    assert chunk(policy) == 6
    assert bac.plan.plans(policy) == (plan,)
    policy.gain = 2.0
    del policy._mark
    assert chunk(policy) == 10


def test_an_attribute_put_in_the_place_of_one_that_runs_replace_is_seen(policy):
    del policy.noise_scheduler.num_calls
    policy.noise_scheduler.step = lambda x: x + 3
    assert chunk(policy) == 10


def test_a_write_through_data_to_half_of_a_weight_is_seen_by_the_next_chunk(policy):
    policy.table.data[1024:3072] = 5
    assert chunk(policy) == 2 * (1 + 2 * 3)


def test_a_write_through_data_to_a_32nd_of_a_weight_is_seen_within_16_chunks(policy):
    policy.table.data[256:384] = 33
    assert [chunk(policy) for _ in range(16)][-1] == 2 * (1 + 2 * 2)


def test_a_hook_on_a_module_that_replaced_another_before_the_recording_is_called():
    policy, calls = wrapped(True), []
    assert chunk(policy) == 6
    policy.act = nn.Identity()
    policy.act.register_forward_hook(lambda *_: calls.append(1))
    for count in (2, 4, 6):
        assert chunk(policy) == 6
        assert len(calls) == count


def test_a_nan_in_the_recording_chunk_is_no_reason_to_refuse_the_next(caplog):
    policy = wrapped()
    with told(caplog, "its actions are not numbers (NaN), so a later chunk is recorded"), torch.no_grad():
        for _ in range(30):
            assert policy.predict_action_chunk({"obs": torch.full((1, 1), torch.nan)}).isnan().all()
    assert bac.plan.plans(policy) == ()
    assert [chunk(policy), chunk(policy)] == [6, 6]
    assert len(bac.plan.plans(policy)) == 1
