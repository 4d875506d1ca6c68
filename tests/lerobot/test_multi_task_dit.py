"""`multi_task_dit` under each of its solvers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.solvers import SOLVERS, solvers_of
from tests.contracts import AdapterContract
from tests.lerobot import models

pytestmark = pytest.mark.slow


class TestDDPM(AdapterContract):
    num_steps = 7
    blocks_per_layer = 2
    options: dict[str, Any] = {"num_inference_steps": 7}

    def make_policy(self) -> nn.Module:
        return models.multi_task_dit(**self.options)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return models.observation(batch_size, steps=2, image=False)

    def chunk(self, policy: nn.Module, batch: Any) -> Tensor:
        return find_host(policy).predict(batch)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.objective.num_inference_steps = num_steps


class TestDDIM(TestDDPM):
    options = {"num_inference_steps": 7, "noise_scheduler_type": "DDIM"}


class TestWithoutRotaryEmbedding(TestDDPM):
    """Its attention is PyTorch's, which returns a pair."""

    options = {"num_inference_steps": 7, "use_rope": False}


class TestFlowWithEuler(TestDDPM):
    options = {"objective": "flow_matching", "num_integration_steps": 7}
    takes_fewer_steps = True

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.config.num_integration_steps = num_steps


def test_a_setting_of_the_objective_is_seen_though_the_run_is_of_the_denoiser():
    policy, untouched = (models.multi_task_dit(**TestFlowWithEuler.options) for _ in range(2))
    bac.wrap(policy, replay=bac.Replay(record="first"))
    kit = TestFlowWithEuler()
    for made in (policy, untouched):
        kit.predict(made)
        made.objective.config.num_integration_steps = 2
    assert torch.equal(kit.predict(policy), kit.predict(untouched))


class TestFlowWithRungeKutta(TestDDPM):
    """Four evaluations per step of the solver."""

    num_steps = 8
    options = {"objective": "flow_matching", "num_integration_steps": 2, "integration_method": "rk4"}

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.config.num_integration_steps = {7: 1, 8: 2, 9: 3}[num_steps]


class TestSmallFlow(TestFlowWithEuler):
    """This repository's type, which sees a picture and predicts chunks from lone observations and given noise."""

    goes_into_eval_mode = True

    def make_policy(self) -> nn.Module:
        return models.small_multi_task_dit(**self.options)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return models.observation(batch_size)

    def chunk(self, policy: nn.Module, batch: Any) -> Tensor:
        noise = torch.randn(len(batch["observation.state"]), policy.config.chunk_size, policy.config.max_action_dim)
        return policy.predict_action_chunk(batch, noise=noise)


class TestSmallDDPM(TestSmallFlow):
    takes_fewer_steps = False
    options = {"objective": "diffusion", "num_inference_steps": 7}

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.objective.num_inference_steps = num_steps


def test_trap_4_counts_evaluations_not_timesteps():
    euler = models.multi_task_dit(objective="flow_matching", num_integration_steps=3)
    runge_kutta = models.multi_task_dit(objective="flow_matching", num_integration_steps=3, integration_method="rk4")
    assert find_host(euler).num_steps == 3
    assert find_host(runge_kutta).num_steps == 12
    assert find_host(runge_kutta).timesteps[:5] == pytest.approx((0, 1 / 6, 1 / 6, 1 / 3, 1 / 3))


def test_trap_8_only_select_action_fills_the_queues():
    """`predict_action_chunk` reads queues; the way in that calibration takes does not, and both make one chunk."""
    policy = models.multi_task_dit(num_inference_steps=7)
    host = find_host(policy)
    names = [block.name for block in host.blocks]
    bac.wrap(policy, bac.Schedule(7, dict.fromkeys(names, (0, 3))), replay=False)
    window = models.observation(2, steps=2, image=False)
    frames = [{k: v[:, step] if k == "observation.state" else v for k, v in window.items()} for step in range(2)]
    policy.reset()
    policy.select_action(frames[0])
    policy._queues["action"].clear()
    torch.manual_seed(0)
    first = policy.select_action(frames[1])
    torch.manual_seed(0)
    assert torch.equal(first, host.predict(window)[:, 0])


def test_replay_is_close_and_hoists_the_modulation_of_time():
    policy = models.multi_task_dit(num_inference_steps=7)
    host = find_host(policy)
    schedule = bac.Schedule(7, dict.fromkeys([block.name for block in host.blocks], (0, 3)))
    results = []
    for record in ("ahead", "first"):  # of which the former, where nothing is recorded, is interpreted
        bac.wrap(policy, schedule, replay=bac.Replay(exact=False, record=record))
        for seed in range(3):
            torch.manual_seed(seed)
            with torch.no_grad():  # this policy leaves gradients on, and a run that may want them is interpreted
                results.append(host.predict(models.observation(2, steps=2, image=False)))
    for one, other in zip(results[:3], results[3:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert len(bac.plan.plans(policy)) == 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_diffusion_policy_can_be_put_to_other_solvers_and_back(solver):
    policy, batch = models.multi_task_dit(num_inference_steps=7), models.observation(2, steps=2, image=False)
    before, own = vars(policy.objective).copy(), find_host(policy).timesteps
    assert solvers_of(find_host(policy)) == SOLVERS
    with models.evaluations(policy.noise_predictor) as timesteps:
        bac.wrap(policy, bac.Denoising(solver, (90, 30, 5)), replay=False)
        assert torch.isfinite(find_host(policy).predict(batch)).all()
        assert timesteps == [90, 30, 5]
        bac.unwrap(policy)
        find_host(policy).predict(batch)
        assert timesteps == [90, 30, 5, *own]
    assert vars(policy.objective) == before


def test_a_flow_cannot():
    assert solvers_of(find_host(models.multi_task_dit(**TestFlowWithEuler.options))) == ()
