"""A plan is used only while everything that it baked in is as it was."""

from __future__ import annotations

import collections
import functools
import types
from contextlib import contextmanager

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import bac
import bac.plan
from bac.caching.block import BlockKind
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


@pytest.fixture
def policy():
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


def test_an_attribute_that_the_code_names_is_never_ignored(policy):
    for scale in range(2, 12):
        policy._private = float(scale)
        assert chunk(policy) == 2 * (1 + 2 * scale)


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


class Signed(Sum):
    def predict_action_chunk(self, batch, sign=0.0):
        return super().predict_action_chunk(batch) * (-1 if str(sign).startswith("-") else 1)


def signed(policy, sign):
    with torch.no_grad():
        return policy.predict_action_chunk({"obs": torch.ones(1, 1)}, sign).item()


def test_minus_zero_is_another_argument_than_zero():
    policy = Signed()
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    assert [signed(policy, sign) for sign in (0.0, 0.0, -0.0, -0.0, 0.0)] == [6, 6, -6, -6, 6]
    assert len(bac.plan.plans(policy)) == 2


class Guided(Sum):
    def predict_action_chunk(self, batch, guidance=None):
        return super().predict_action_chunk(batch) * guidance.scale


def test_an_object_among_the_arguments_is_watched():
    policy, guidance = Guided(), Settings()
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)
    assert [signed(policy, guidance) for _ in range(3)] == [6, 6, 6]
    guidance.scale = 2.0
    assert [signed(policy, guidance) for _ in range(3)] == [12, 12, 12]


def test_arguments_that_differ_at_every_chunk_are_told_of(caplog):
    policy = Signed()
    replay = bac.Replay(record="second")
    bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=replay)
    with caplog.at_level("WARNING", logger="bac.plan"):
        assert [signed(policy, 0.1 * index) for index in range(70)] == [6] * 70
    assert caplog.text.count("its arguments differ at every chunk") == 1


def test_a_plan_recorded_ahead_tells_when_it_is_out_of_date(caplog):
    policy = wrapped(bac.Replay(record="ahead"))
    with torch.no_grad():
        bac.plan.record(policy, {"obs": torch.ones(1, 1)})
    assert chunk(policy) == 6
    policy.factors[0] = 2.0
    with caplog.at_level("WARNING", logger="bac.plan"):
        assert [chunk(policy), chunk(policy)] == [10, 10]
    assert caplog.text.count("record it again: bac.plan.record(policy, batch)") == 1


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
def test_a_global_setting_that_changes_numbers_has_plans_of_its_own(policy, setting):
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
