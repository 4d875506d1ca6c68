"""Flow-matching policies that step through a noise scheduler of diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.adapters.flow import Through
from bac.errors import RunError, ScheduleError
from bac.solvers import AdamsBashforth, FlowFitter
from bac.tuning.flow import FITTED, OWN
from tests.bac.adapters.test_policies import TestDiffusionTransformerFlow as DiffusionTransformerFlow
from tests.contracts_flow import FlowContract, Step, assert_close, denoising, spy

diffusers = pytest.importorskip("diffusers")
EULER = bac.Denoising(solver="Euler", timesteps=(0.8, 0.2, 0.05))


@pytest.mark.slow
class TestDiffusionTransformer(FlowContract):
    """The share of noise is told as a hundred times itself, and the chunk begins at the newest observation."""

    kit = DiffusionTransformerFlow()

    def told(self, time: float) -> float:
        return 100 * time

    def actions(self, sample: Tensor) -> Tensor:
        return sample[:, 1:6]

    def watch(self, policy: nn.Module) -> list[Step]:
        steps: list[Step] = []
        names = ("sample", "timestep", "cond")
        spy(policy.diffusion.transformer, "forward", Through(names, *names[:2], answers=True), steps)
        return steps

    def test_it_is_fitted_to_its_flow_and_to_its_own_steps(self) -> None:
        policy, times = self.kit.make_policy(), (0.8, 0.2)
        own = FlowFitter(find_host(policy), lambda: self.predict(policy), own=True)
        assert_close(self.actions(own._reference.last), self.predict(policy))
        assert own.num_evaluations == self.kit.num_steps
        for fitter in (own, FlowFitter(find_host(policy), lambda: self.predict(policy), 20)):
            fit = fitter.fit(times)
            assert fit.error < 0.75 * fitter.at(AdamsBashforth(1), times).error

    def test_it_is_tuned(self) -> None:
        tuned = bac.tune(
            self.kit.make_policy(), [self.kit.make_batch(6)], target_latency_s=50.0, replay=False, rounds=2,
            evaluations=3, progress=False, sweeps=(3,),
        )  # fmt: skip
        found = {trial.family for trial in tuned.trials if trial.denoising.num_evaluations == 3}
        assert {"fewer steps", OWN, FITTED} <= found

    def test_its_description_says_what_it_takes_and_what_it_follows(self) -> None:
        policy = self.kit.make_policy()
        assert "solver='Euler', timesteps=(0.8, 0.2, 0.05)" in str(bac.describe(policy))
        bac.wrap(policy, EULER, replay=False)
        assert "noise_scheduler = FlowSteps" in str(bac.describe(policy))
        assert find_host(policy).fingerprint().solver == "EvenFlowScheduler"

    def test_a_solver_of_diffusion_is_refused(self) -> None:
        with pytest.raises(ScheduleError, match="is a flow-matching policy, which takes Euler"):
            bac.wrap(self.kit.make_policy(), bac.Denoising(solver="DPM-Solver++", timesteps=(91, 47, 2)))


class Loop(nn.Module):
    """A policy of one's own: diffusers' scheduler under its usual name, asked for its times by the number of steps.

    The denoiser takes the share of noise for the velocity, whatever the sample.
    """

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self.noise_scheduler, self.num_inference_steps = scheduler, 4
        self.decoder = nn.TransformerDecoderLayer(4, 1, 4)  # to have a block, which is not asked
        self.told: list[float] = []
        self.eval()

    def reset(self) -> None:
        self.told.clear()

    def predict_action_chunk(self, batch: Tensor) -> Tensor:
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        x = torch.ones_like(batch)
        for t in self.noise_scheduler.timesteps:
            x = self.noise_scheduler.step(self.denoise(x, t), t, x).prev_sample
        return x

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        self.decoder(x[None], x[None])
        self.told.append(float(t))
        return torch.full_like(x, float(t) / 1000)


OBSERVED = torch.zeros(2, 4)
SCHEDULERS = {
    "euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(),
    "shifted": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_under_its_usual_name_is_stood_in_for(name):
    policy = Loop(SCHEDULERS[name]())
    dense = policy.predict_action_chunk(OBSERVED)
    before = sorted(vars(policy.noise_scheduler))
    policy.reset()
    bac.wrap(policy, EULER, replay=False)
    chunk = policy.predict_action_chunk(OBSERVED)
    assert policy.told == pytest.approx([800, 200, 50])
    torch.testing.assert_close(chunk, torch.full_like(chunk, 1 - 0.6 * 0.8 - 0.15 * 0.2 - 0.05 * 0.05))
    bac.unwrap(policy)
    assert torch.equal(policy.predict_action_chunk(OBSERVED), dense)
    assert sorted(vars(policy.noise_scheduler)) == before


@pytest.mark.parametrize("name", ["euler", "shifted"])
def test_its_own_times_are_those_that_the_scheduler_makes(name):
    policy = Loop(SCHEDULERS[name]())
    dense = policy.predict_action_chunk(OBSERVED)
    times = find_host(policy).flow.own_shares(4)
    assert times[-1] == 0 and [1000 * time for time in times[:-1]] == pytest.approx(policy.told)
    bac.wrap(policy, bac.Denoising(solver="Euler", timesteps=times[:-1]), replay=False)
    assert_close(policy.predict_action_chunk(OBSERVED), dense)


def test_times_that_only_a_call_decides_are_not_asked_for_before_it():
    policy = Loop(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    set_timesteps = policy.noise_scheduler.set_timesteps
    policy.noise_scheduler.set_timesteps = lambda num_steps: set_timesteps(num_steps, mu=0.7)
    flow = find_host(policy).flow
    with pytest.raises(ScheduleError, match="the last one did not make 4 steps"):
        flow.own_shares(4)
    dense = policy.predict_action_chunk(OBSERVED)
    bac.wrap(policy, bac.Denoising(solver="Euler", timesteps=flow.own_shares(4)[:-1]), replay=False)
    assert_close(policy.predict_action_chunk(OBSERVED), dense)


REFUSED = {
    "it draws noise at every step, with stochastic_sampling=True": lambda: diffusers.FlowMatchEulerDiscreteScheduler(
        stochastic_sampling=True
    ),
    "its times rise, with invert_sigmas=True": lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "it draws noise at every step, with algorithm_type=sde-dpmsolver": lambda: diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, algorithm_type="sde-dpmsolver++"
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_plain_flow_is_refused_with_the_reason(reason):
    with pytest.raises(ScheduleError, match=f"cannot be replaced .{reason}"):
        bac.wrap(Loop(REFUSED[reason]()), EULER)


def test_a_run_that_does_not_start_from_noise_is_refused():
    policy = Loop(SCHEDULERS["euler"]())
    bac.wrap(policy, EULER, replay=False)
    policy.denoise = lambda x, t: policy.noise_scheduler.add_noise(x, x, t)
    with pytest.raises(RunError, match=r"starts from pure noise, got a picture.*bac\.unwrap"):
        policy.predict_action_chunk(OBSERVED)
    policy.denoise = lambda x, t: policy.noise_scheduler.set_begin_index(1)
    with pytest.raises(RunError, match="got one that starts at 1"):
        policy.predict_action_chunk(OBSERVED)
    assert type(policy.noise_scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"


def test_only_times_that_the_denoiser_tells_apart_are_taken():
    with pytest.raises(ScheduleError, match=r"shares of noise in \(0, 1\]"):
        bac.wrap(Loop(SCHEDULERS["euler"]()), bac.Denoising(denoising(3).solver, (91, 47, 2)))
