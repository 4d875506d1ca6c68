"""Under real-time chunking both kinds of chunk are replayed, and LeRobot's engine sees nothing of the preparation."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.rollout.inference import rtc
from torch import Tensor, nn

import bac
from bac.lerobot import clock, guidance, preparation, prepare_at_first_chunk, trial
from tests.contracts_flow import denoising
from tests.contracts_replay import replayer
from tests.lerobot import models

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")

pytestmark = pytest.mark.slow

HORIZON, FPS = 3, 20

POLICIES: dict[str, Callable[[], nn.Module]] = {
    "pi0": lambda: models.pi(name="pi0"),
    "pi05": lambda: models.pi(name="pi05"),
    "smolvla": models.smolvla,
    "evo1": lambda: heads.make(heads.EVO1),
    "molmoact2": lambda: heads.make(heads.MolmoAct2),
    "groot": lambda: heads.make(heads.Groot),
}
HEADS = (heads.EVO1, heads.MolmoAct2, heads.Groot)
CALLS = ((0, None), (1, 1), (2, 2), (5, 3), (1, 4), (4, None))  # delay, and seed of what is left of the last chunk


@pytest.fixture(autouse=True)
def gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay pays, whatever else this machine does; the engine has its own clock."""
    monkeypatch.setattr(trial, "_GAIN", float("inf"))
    monkeypatch.setattr(rtc, "time", time)


@pytest.fixture(params=POLICIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def guided(made: nn.Module, **options: Any) -> nn.Module:
    """As `lerobot-rollout --inference.type=rtc` leaves it; the heads are made so."""
    if not isinstance(made, HEADS):
        made.config.rtc_config = RTCConfig(execution_horizon=HORIZON, **options)
        made.init_rtc_processor()
    return made


def prepared_later(policy: nn.Module, what: Any = None) -> nn.Module:
    bac.wrap(policy, what)
    assert prepare_at_first_chunk(policy, follows="" if what is None else "its file")
    return policy


def left_over(seed: int | None, actions: int = models.ACTIONS) -> Tensor | None:
    """As LeRobot's engine cuts it: `[HORIZON, actions]`."""
    if seed is None:
        return None
    return torch.randn(HORIZON, actions, generator=torch.Generator().manual_seed(seed))


def chunks(policy: nn.Module) -> list[Tensor]:
    torch.manual_seed(0)
    is_head = isinstance(policy, HEADS)
    seen, actions = (heads.encoded(1), heads.ACTIONS) if is_head else (models.observation(1), models.ACTIONS)
    with torch.no_grad():
        made = [
            policy.predict_action_chunk(seen, inference_delay=delay, prev_chunk_left_over=left_over(seed, actions))
            for delay, seed in CALLS
        ]
    return [*made, torch.rand(3)]


def are_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_plain_and_guided_chunks_are_replayed_bit_for_bit_whatever_their_delay(name):
    expected = chunks(guided(POLICIES[name]()))
    policy = prepared_later(guided(POLICIES[name]()))
    assert are_equal(chunks(policy), expected)
    found, in_trials = bac.describe(policy), 3 + 3
    assert len(found.plans) == 2 and found.num_replays == in_trials + len(CALLS) - 1  # the first was the policy's own


@pytest.mark.parametrize("few", [bac.Denoising(solver="Euler", timesteps=(0.8, 0.2, 0.05)), denoising(3)])
def test_chunks_that_follow_a_file_are_those_made_intercepted(few):
    expected = chunks(bac.wrap(guided(models.pi(name="pi0")), few, replay=False))
    policy = prepared_later(guided(models.pi(name="pi0")), few)
    assert are_equal(chunks(policy), expected)
    assert len(bac.describe(policy).plans) == 2


def test_without_guidance_one_plan_serves_every_delay():
    expected = chunks(guided(models.pi(name="pi0"), enabled=False))
    policy = prepared_later(guided(models.pi(name="pi0"), enabled=False))
    assert are_equal(chunks(policy), expected)
    assert len(bac.describe(policy).plans) == 1
    assert bac.describe(policy).num_replays == 3 + len(CALLS) - 1


def test_one_line_tells_both_latencies(caplog):
    with caplog.at_level(logging.INFO, logger="bac.lerobot"):
        chunks(prepared_later(guided(models.pi(name="pi0"))))
    assert " before, same actions; guided " in caplog.records[-1].message


def test_guided_chunks_that_cannot_be_replayed_run_as_they_are_and_the_line_says_why(monkeypatch, caplog):
    monkeypatch.setattr(guidance.PrefixWeights, "learn", lambda *_: False)
    expected = chunks(guided(models.pi(name="pi0")))
    policy = prepared_later(guided(models.pi(name="pi0")))
    with caplog.at_level(logging.INFO, logger="bac.lerobot"):
        assert are_equal(chunks(policy), expected)
    assert "guided chunks are not replayed: bac does not know where they read their delay" in caplog.text
    assert len(bac.describe(policy).plans) == 1  # none is recorded while a robot moves


@pytest.mark.parametrize("rows", [HORIZON - 1, HORIZON + 1])
def test_a_guided_chunk_of_another_shape_runs_as_it_is_and_a_line_says_so_once(caplog, rows):
    policy, plain = prepared_later(guided(models.pi(name="pi0"))), guided(models.pi(name="pi0"))
    chunks(policy)
    options = {"inference_delay": 1, "prev_chunk_left_over": torch.rand(rows, models.ACTIONS)}
    for _ in range(2):
        torch.manual_seed(0)
        found = policy.predict_action_chunk(models.observation(1), **options)
        torch.manual_seed(0)
        assert torch.equal(found, plain.predict_action_chunk(models.observation(1), **options))
    assert caplog.text.count("some chunks are not replayed: they are of another kind or shape") == 1
    assert len(bac.describe(policy).plans) == 2


@pytest.mark.parametrize("batch_size", [1, 2])
def test_of_groot_one_plan_serves_every_rest_of_the_last_chunk_and_every_delay(batch_size):
    policy, plain = prepared_later(heads.make(heads.Groot)), heads.make(heads.Groot)
    seen, made = heads.encoded(batch_size), {policy: [], plain: []}
    for one in made:
        torch.manual_seed(0)
        made[one].append(one.predict_action_chunk(seen))
        for rows, delay in [(3, 0), (3, 1), (1, 1), (heads.HORIZON, 2), (2, 0)]:
            rest = torch.rand(rows, heads.ACTIONS, generator=torch.Generator().manual_seed(rows))
            made[one].append(one.predict_action_chunk(seen, inference_delay=delay, prev_chunk_left_over=rest))
    assert are_equal(*made.values())
    found = replayer(policy)
    assert len(found.plans) == 2 and not found.interruptions and found.answered is found.plans[-1]


def test_of_groot_with_relative_actions_no_guided_chunk_is_prepared():
    """LeRobot guides none of them."""
    policy = prepared_later(heads.make(heads.Groot))
    policy.config.use_relative_actions = True
    policy.predict_action_chunk(heads.encoded(1))
    assert len(replayer(policy).plans) == 1


def test_unwrapping_leaves_the_head_of_groot_as_it_was():
    policy = heads.make(heads.Groot)
    head = policy._groot_model.action_head
    before = dict(vars(head))
    chunks(prepared_later(policy))
    bac.unwrap(policy)
    assert vars(head) == before


def test_another_execution_horizon_is_followed():
    policy, plain = prepared_later(guided(models.pi(name="pi0"))), guided(models.pi(name="pi0"))
    chunks(policy), chunks(plain)
    for made in (policy, plain):
        made.config.rtc_config.execution_horizon = HORIZON - 1
    assert are_equal(chunks(policy), chunks(plain))


def test_with_rtcs_debug_tracker_nothing_is_replayed(caplog):
    expected = chunks(guided(models.pi(name="pi0"), debug=True))
    policy = prepared_later(guided(models.pi(name="pi0"), debug=True))
    assert are_equal(chunks(policy), expected)
    assert "RTC's debug tracker looks at every step" in caplog.text


def test_unwrapping_leaves_the_processor_as_it_was():
    policy = guided(models.pi(name="pi0"))
    before = dict(vars(policy.rtc_processor))
    chunks(prepared_later(policy))
    bac.unwrap(policy)
    assert vars(policy.rtc_processor) == before


class Robot:
    """As much of one as the engine asks for."""

    robot_type = "none"
    action_features = ("x.pos", "y.pos")


class Steps(list):
    """A pipeline of processors without any."""

    steps = ()

    def __call__(self, thing: Any) -> Any:
        return thing

    def reset(self) -> None:
        """There is nothing to forget."""


def delays_of(policy: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Run LeRobot's engine until three chunks were asked for, each with the delay that it plans for."""
    delays: list[int] = []
    predict, enough = policy.predict_action_chunk, threading.Event()

    def noted(batch: Any, **options: Any) -> Tensor:
        delays.append(options["inference_delay"])
        if len(delays) == 3:
            enough.set()
        return predict(batch, **options)

    monkeypatch.setattr(policy, "predict_action_chunk", noted)
    monkeypatch.setattr(rtc, "build_dataset_frame", lambda *_, **__: {})
    monkeypatch.setattr(rtc, "prepare_observation_for_inference", lambda *_: models.observation(1))
    engine = rtc.RTCInferenceEngine(
        policy, Steps(), Steps(), Robot(), policy.config.rtc_config, {}, "push", FPS, "cpu"
    )  # fmt: skip
    engine.start()
    engine.notify_observation({})
    engine.resume()
    assert enough.wait(120) and not engine.failed
    engine.stop()
    return delays


@pytest.mark.parametrize("what", [None, bac.Denoising(solver="Euler", timesteps=(0.8, 0.2, 0.05))])
def test_lerobots_engine_plans_for_the_replayed_latency_not_for_the_preparation(monkeypatch, what):
    record = preparation.Preparation._record

    def slowly(*args: Any) -> Any:
        time.sleep(1.0)
        return record(*args)

    monkeypatch.setattr(preparation.Preparation, "_record", slowly)
    policy = prepared_later(guided(models.pi(name="pi0")), what)
    delays = delays_of(policy, monkeypatch)
    assert delays[0] == 0 and max(delays) < FPS  # the two recordings alone take two seconds
    assert rtc.time is clock._CLOCK


def test_a_preparation_that_fails_is_not_counted_either(monkeypatch):
    def fail(*_: Any) -> None:
        time.sleep(1.5)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(preparation.Preparation, "_record", fail)
    assert max(delays_of(prepared_later(guided(models.pi(name="pi0"))), monkeypatch)) < FPS


def test_the_clock_hides_time_from_this_thread_alone():
    before = clock._CLOCK.perf_counter()
    clock.hide(100.0)
    other: list[float] = []
    thread = threading.Thread(target=lambda: other.append(clock._CLOCK.perf_counter()))
    thread.start()
    thread.join()
    assert -100.0 <= clock._CLOCK.perf_counter() - before < -90.0
    assert other[0] > before
    clock.hide(-100.0)
    assert clock._CLOCK.monotonic is time.monotonic


def test_an_engine_without_its_clock_gets_a_warning(monkeypatch, caplog):
    monkeypatch.delattr(rtc, "time")
    clock.hide(2.0)
    assert "this LeRobot has no lerobot.rollout.inference.rtc.time" in caplog.text
    assert "BAC=intercept" in caplog.text
