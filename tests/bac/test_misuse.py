"""A way to denoise that does not fit, and policies that do unusual things, are told or handled; never guessed."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

import bac
import bac.plan
from bac.adapters import find_host
from bac.errors import MismatchError, RunError, ScheduleError
from bac.solvers import DPMSolver, Multistep
from tests.bac.models import TinyTransformerPolicy, obs, sweep

THREE = bac.Denoising(Multistep(((0.9, 0.1, 0.0), (0.8, 0.1, 0.0, 0.1, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0))), (18, 9, 3))


class Ddim(TinyTransformerPolicy):
    """Reads its noise scheduler and its number of steps anew in every run."""

    def __init__(self, noise_scheduler: object | None = None) -> None:
        super().__init__()
        self.noise_scheduler = noise_scheduler or DDIMScheduler(num_train_timesteps=20)
        self.num_inference_steps = 5
        self.num_left_out = 0

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        memory = self.condition(batch["obs"])
        sample = torch.randn(len(memory), 5, 2)
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        timesteps = self.noise_scheduler.timesteps
        for timestep in timesteps[: len(timesteps) - self.num_left_out]:
            prediction = self.head(self.decoder(self.embed(sample), memory))
            sample = self.noise_scheduler.step(prediction, timestep, sample)[0]
        return sample


class WritesIntoItsBatch(TinyTransformerPolicy):
    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        batch["memory"] = self.condition(batch["obs"])
        return super().predict_action_chunk(batch)


def chunk(policy: nn.Module, seed: int = 0) -> Tensor:
    return find_host(policy).predict_seeded(obs(), seed)


def test_a_policy_that_writes_into_its_batch_is_replayed_like_any_other():
    policy = WritesIntoItsBatch()
    untouched = [chunk(policy, seed) for seed in range(5)]
    bac.wrap(policy)
    assert all(torch.equal(chunk(policy, seed), wanted) for seed, wanted in enumerate(untouched))
    assert bac.describe(policy).num_replays == 3


def test_a_plan_outlives_what_its_run_does_not_read():
    policy = bac.wrap(Ddim(), THREE, replay=bac.Replay(record="ahead"))
    plan = bac.plan.record(policy, obs())
    policy.num_inference_steps = 4  # the solver's three are swapped in
    chunk(policy)
    assert bac.plan.plans(policy) == (plan,) and bac.describe(policy).num_replays == 1


@pytest.mark.parametrize("denoising", [THREE, bac.Denoising("DPM-Solver++", (18, 9, 3))])
def test_a_run_that_makes_fewer_steps_than_the_solver_is_for_is_an_error(denoising):
    policy = bac.wrap(Ddim(), denoising, replay=False)
    policy.num_left_out = 1
    with pytest.raises(RunError, match="evaluated 2 times in a denoising run, the schedule is for 3"):
        chunk(policy)


def test_a_schedule_is_for_timesteps_even_where_the_number_of_steps_is_named():
    made = sweep(Ddim(), (0, 2), 5)
    denoising = bac.Denoising(num_steps=5, schedule=made, fingerprint=find_host(Ddim()).fingerprint())
    bac.wrap(Ddim(), denoising)
    with pytest.raises(MismatchError, match="timesteps: "):
        bac.wrap(Ddim(DDIMScheduler(num_train_timesteps=20, timestep_spacing="trailing")), denoising)


def test_no_solver_of_diffusion_is_put_on_a_flows_noise_scheduler():
    policy = Ddim(FlowMatchEulerDiscreteScheduler())
    assert not find_host(policy).takes_solvers
    with pytest.raises(ScheduleError, match="is a flow-matching policy, which takes Euler"):
        bac.wrap(policy, bac.Denoising("DPM-Solver++", (18, 9, 3)))


@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0])
def test_dpm_solver_clips_where_the_policy_does(limit):
    trained = DDIMScheduler(num_train_timesteps=20, clip_sample=True, clip_sample_range=limit)
    scheduler = DPMSolver(1).scheduler(trained, (18, 9, 3))
    clean = scheduler._threshold_sample(torch.tensor([-5.0, 0.25, 5.0]))
    assert clean.tolist() == [-limit, 0.25, limit]


def test_an_attribute_of_the_class_is_one_again_after_a_run():
    class Shared(Ddim):
        num_inference_steps = 5

    policy = Shared()
    del policy.num_inference_steps
    bac.wrap(policy, THREE, replay=False)
    before = set(vars(policy))
    chunk(policy)
    assert set(vars(policy)) == before and policy.num_inference_steps == 5


def test_a_guard_is_for_one_solver():
    schedule = sweep(Ddim(), (0, 2), 3)
    other = bac.Denoising("DPM-Solver++", (18, 9, 3), schedule=schedule)
    fitted = bac.Denoising(THREE.solver, THREE.timesteps, schedule=schedule)
    batches = [obs(2, seed) for seed in range(2)]
    guard = bac.guarding.calibrate(Ddim(), fitted, batches, progress=False)
    bac.wrap(Ddim(), fitted, guard=guard)
    with pytest.raises(MismatchError, match="guard: was calibrated on another policy"):
        bac.wrap(Ddim(), other, guard=guard)


@pytest.mark.parametrize("wish", [None, 0, "interpret"])
def test_replay_is_a_truth_value_or_options(wish):
    with pytest.raises(ScheduleError, match="replay: must be True, False or a bac.Replay, got"):
        bac.wrap(Ddim(), THREE, replay=wish)


def test_recording_ahead_tells_when_something_watches_the_run():
    policy = bac.wrap(Ddim(), replay=bac.Replay(record="ahead"))
    first = bac.plan.record(policy, obs())
    assert bac.plan.record(policy, obs()) is first
    policy.head.register_forward_hook(lambda *_: None)
    with pytest.raises(RunError, match="cannot be replayed: a forward hook watches it"):
        bac.plan.record(policy, obs(3))
