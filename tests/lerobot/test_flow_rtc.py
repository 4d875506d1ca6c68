"""Solvers of few steps under real-time chunking: guidance comes first, the solver second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.errors import RunError
from tests.contracts_flow import TIMES, assert_close, denoising
from tests.lerobot.test_rtc import POLICIES, chunk, heads, left_over

pytestmark = pytest.mark.slow

WITH_A_PROCESSOR = [name for name in POLICIES if name != "groot"]
WEIGHTS = {0.46: 10 / 4.6, 0.309: 10 / 3.09, 0.061: 10 / 0.61}  # of the three steps, by their widths


@pytest.fixture(params=WITH_A_PROCESSOR)
def policy(request: pytest.FixtureRequest) -> nn.Module:
    return POLICIES[request.param]()


def guided_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments, settings and answers of the processor itself, below its stand-in."""
    calls: list[dict[str, Any]] = []
    original: Callable[..., Tensor] = RTCProcessor.denoise_step

    def spied(self: RTCProcessor, **options: Any) -> Tensor:
        answer = original(self, **options)
        weights = self.get_prefix_weights(options["inference_delay"], 3, options["x_t"].shape[-2])
        calls.append({**options, "weight": self.rtc_config.max_guidance_weight, "answer": answer, "weights": weights})
        return answer

    monkeypatch.setattr(RTCProcessor, "denoise_step", spied)
    return calls


def test_trap_9_the_guided_velocity_is_what_the_solver_takes_at_the_true_time(policy, monkeypatch):
    calls = guided_calls(monkeypatch)
    bac.wrap(policy, denoising(3), replay=False)
    found = chunk(policy, left_over())
    flow = find_host(policy).flow
    assert [call["time"] for call in calls] == pytest.approx([flow.noise(flow.told(time)) for time in TIMES[3]])
    assert [call["weight"] for call in calls] == pytest.approx(list(WEIGHTS.values()))
    before: tuple[Tensor, ...] = ()
    for step, (call, row, width) in enumerate(zip(calls, denoising(3).solver.coefficients, WEIGHTS, strict=True)):
        x, v = call["x_t"].double(), call["answer"].double()  # the processor's convention: noise - action
        newest = (x - call["time"] * v, x + (1 - call["time"]) * v)
        solved = sum(c * term for c, term in zip(row, (*newest, x, *before), strict=True))
        committed = call["weights"][: x.shape[-2], None]  # takes Euler's step
        after = (1 - committed) * solved + committed * (x - width * v)
        reached = calls[step + 1]["x_t"] if step < 2 else found
        assert_close(reached, after[..., : reached.shape[-1]])
        before = newest


def test_the_bound_of_guidance_is_the_inverse_of_each_step_s_width_and_the_policy_s_is_left_alone(policy):
    config = RTCConfig(execution_horizon=3, max_guidance_weight=5.0)
    processor = RTCProcessor(config)
    owner, attribute = find_host(policy).flow.guidance or (None, "")
    if owner is None:
        pytest.skip("evo1 hands its processor over anew at every call")
    setattr(owner, attribute, processor)
    bac.wrap(policy, denoising(3), replay=False)
    chunk(policy, left_over())
    assert getattr(owner, attribute) is processor and processor.rtc_config is config
    assert config.max_guidance_weight == 5.0 and set(vars(processor)) == {"rtc_config", "tracker"}


def test_one_step_is_refused_before_the_robot_moves(policy):
    bac.wrap(policy, denoising(1), replay=False)
    with pytest.raises(RunError, match="needs more than one denoising step"):
        chunk(policy, None)
    bac.wrap(policy, denoising(3), replay=False)
    assert torch.isfinite(chunk(policy, left_over())).all()


def test_a_processor_that_comes_after_wrap_is_guided_too(policy):
    if isinstance(policy, heads.EVO1):
        pytest.skip("evo1 hands its processor over anew at every call")
    bac.wrap(policy, denoising(3), replay=False)
    expected = chunk(policy, left_over())
    owner, attribute = find_host(policy).flow.guidance
    processor = getattr(owner, attribute)
    setattr(owner, attribute, None)
    bac.wrap(policy, denoising(3), replay=False)
    setattr(owner, attribute, processor)
    assert torch.equal(chunk(policy, left_over()), expected)


def test_guided_chunks_do_not_depend_on_the_ones_before_and_hold_no_graph(policy):
    bac.wrap(policy, denoising(3), replay=False)
    first = chunk(policy, left_over(1))
    assert not first.requires_grad
    chunk(policy, None, seed=1)
    chunk(policy, left_over(2), seed=2)
    assert torch.equal(chunk(policy, left_over(1)), first)
    bac.wrap(policy, denoising(3))
    for _ in range(3):
        assert torch.equal(chunk(policy, left_over(1)), first)


@pytest.mark.parametrize("name", WITH_A_PROCESSOR)
def test_what_was_committed_stays_near_the_old_chunk_as_with_ten_steps(name):
    """The action that the robot executes meanwhile; ten of the policy's own steps are the measure."""
    old, distances = left_over(), []
    for way in (bac.Denoising(num_steps=10), bac.Denoising(solver="Euler", timesteps=(0.8, 0.2, 0.05))):
        policy = bac.wrap(POLICIES[name](), way, replay=False)
        new = chunk(policy, old)
        distances.append(float((new[0, 0] - old[0, : new.shape[-1]]).abs().max()))
    assert distances[0] < 0.02 and distances[1] < 0.01


def test_groot_keeps_frozen_actions_exactly():
    """It paints over: their velocity is multiplied by zero, whatever it is."""
    policy = bac.wrap(POLICIES["groot"](), denoising(3), replay=False)
    assert torch.equal(chunk(policy, left_over())[0, 0], left_over()[0, : heads.ACTIONS])
