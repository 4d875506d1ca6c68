"""Solvers of few steps within the loops of LeRobot's flow-matching policies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.adapters.flow import Through
from bac.caching.interceptors.patch import stack_on
from bac.errors import ScheduleError, UnsupportedPolicyError
from bac.solvers import AdamsBashforth, Multistep
from bac.solvers.flow_fitting import FlowFitter, own_rows
from bac.solvers.flow_interceptor import FlowInterceptor
from tests.contracts_flow import TIMES, FlowContract, Step, assert_close, denoising, spy
from tests.lerobot import models, test_action_heads, test_multi_task_dit, test_pi, test_smolvla, test_wall_x

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")

pytestmark = pytest.mark.slow


class TestSmolVLA(FlowContract):
    kit = test_smolvla.TestSmolVLA()


class TestPi0(FlowContract):
    kit = test_pi.TestPi0()


class TestPi05(FlowContract):
    kit = test_pi.TestPi05()


class TestSmallPi0(FlowContract):
    kit = test_pi.TestSmallPi0()


class TestMultiTaskDiT(FlowContract):
    kit = test_multi_task_dit.TestFlowWithEuler()
    rising = True

    def actions(self, sample: Tensor) -> Tensor:
        return sample[:, 1:6]  # from the newest of two observations on


class TestGroot(FlowContract):
    kit = test_action_heads.TestGroot()
    rising, buckets = True, 1000


class TestVLAJEPA(FlowContract):
    kit = test_action_heads.TestVLAJEPA()
    rising, buckets = True, 1000


class TestEVO1(FlowContract):
    kit = test_action_heads.TestEVO1()
    rising, buckets = True, 999

    def watch(self, policy: nn.Module) -> list[Step]:
        """Its times are rows of a table; what the first layer gets is looked up there."""
        steps, head = super().watch(policy), policy.model.action_head
        table = head.time_pos_enc(1000)[0]

        def read(_: Any, inputs: tuple[Any, ...]) -> None:
            rows = [int((table == row).all(1).nonzero()) for row in inputs[2]]
            assert len(set(rows)) == 1
            steps[-1].time = float(rows[0])

        head.transformer_blocks[0].register_forward_pre_hook(read)
        return steps


class TestEO1(FlowContract):
    kit = test_action_heads.TestEO1()


class TestMolmoAct2(FlowContract):
    kit = test_action_heads.TestMolmoAct2()
    rising = True

    def watch(self, policy: nn.Module) -> list[Step]:
        """Its modulations are prepared ahead of the loop, for all times; a step is of the one that it is given."""
        steps, expert, prepared = super().watch(policy), policy._action_expert(), {}
        prepare, forward = expert.prepare_modulation_cache, expert.forward_with_context

        def preparing(times: list[Tensor]) -> Any:
            made = prepare(times)
            prepared.update({id(one.conditioning): float(time[0]) for one, time in zip(made, times, strict=True)})
            return made

        def stepping(actions: Tensor, conditioning: Tensor, **options: Any) -> Tensor:
            output = forward(actions, conditioning, **options)
            steps[-1].time = prepared[id(options["modulation"].conditioning)]
            return output

        vars(expert)["prepare_modulation_cache"], vars(expert)["forward_with_context"] = preparing, stepping
        return steps


class TestXVLA(FlowContract):
    """It predicts clean actions, and mixes them with the first noise at its next time."""

    kit = test_action_heads.TestXVLA()

    def terms(self, step: Step, noise: float) -> tuple[Tensor, Tensor]:
        return step.output, (step.sample - (1 - noise) * step.output) / noise

    def own(self, policy: nn.Module) -> bac.Denoising:
        times = [1 - step / 7 for step in range(7)]
        return bac.Denoising(Multistep(own_rows(find_host(policy).flow, times)), times)


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # it asks for autocast on a device that is not there
class TestFastWAM(FlowContract):
    """Its scheduler is an object of its own, for which another is swapped in; a batch is one run after the other."""

    kit = test_action_heads.TestFastWAM()
    batch_sizes = (1,)

    def told(self, time: float) -> float:
        return 1000 * time

    def watch(self, policy: nn.Module) -> list[Step]:
        steps: list[Step] = []
        names = ("latents_action", "timestep_action")
        spy(policy.model, "_predict_action_noise_with_cache", Through(names, *names, answers=True), steps)
        return steps

    def own(self, policy: nn.Module) -> bac.Denoising:
        return bac.Denoising(solver="Euler", timesteps=[time / 1000 for time in find_host(policy).timesteps])


class TestWallX(FlowContract):
    kit = test_wall_x.TestWallX()
    rising = True


class LingBotVAAlone:
    """The first chunk of an episode, of one observation."""

    def make_policy(self) -> nn.Module:
        return heads.make(backbones.LingBotVA)

    def predict(self, policy: nn.Module, batch_size: int = 1, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        policy.reset()
        return policy.predict_action_chunk({})


class TestLingBotVA(FlowContract):
    """Its last call, at time 0, only keeps the finished actions for the next chunk."""

    kit = LingBotVAAlone()
    replays = False

    def watch(self, policy: nn.Module) -> list[Step]:
        steps: list[Step] = []
        forward = policy.transformer.forward

        def spied(inputs: dict[str, Tensor], **options: Any) -> Tensor:
            output = forward(inputs, **options)
            if options["action_mode"]:
                x = inputs["noisy_latents"].detach().clone()
                velocity = output.reshape(1, 2, -1, 3).permute(0, 3, 1, 2)[..., None]
                steps.append(Step(x, float(inputs["timesteps"].flatten()[-1]), velocity))
            return output

        vars(policy.transformer)["forward"] = spied
        return steps

    def own(self, policy: nn.Module) -> bac.Denoising:
        return bac.Denoising(solver="Euler", timesteps=[time / 1000 for time in find_host(policy).timesteps[:-1]])

    @pytest.mark.parametrize("num_steps", TIMES)
    def test_the_effective_velocity_makes_the_explicit_loop(self, num_steps: int) -> None:
        """The first frame and one channel are no actions: the policy keeps them at zero."""
        policy, way = self.kit.make_policy(), denoising(num_steps)
        steps = self.watch(policy)
        bac.wrap(policy, way, replay=False)
        self.predict(policy)
        assert [step.time for step in steps] == pytest.approx([*(1000 * t for t in way.timesteps), 0.0])
        expected = self.explicit(steps[:-1], way.timesteps, way.solver.coefficients)
        for found, wanted in zip([step.sample for step in steps[1:]], expected, strict=True):
            assert_close(found[:, :2, 1:], wanted[:, :2, 1:])

    def test_trap_lingbot_the_last_call_keeps_the_finished_actions_for_the_second_chunk(self) -> None:
        """The two chunks of an episode with the policy's own steps, as the solver makes them."""
        policy = self.kit.make_policy()
        dense = [self.predict(policy), policy.predict_action_chunk({})]
        bac.wrap(policy, self.own(policy), replay=False)
        for found, wanted in zip([self.predict(policy), policy.predict_action_chunk({})], dense, strict=True):
            assert_close(found, wanted)


def test_rk4_is_refused_with_the_reason():
    policy = models.multi_task_dit(objective="flow_matching", num_integration_steps=3, integration_method="rk4")
    with pytest.raises(
        ScheduleError, match=r'\(RK4 evaluates the denoiser four times a step.*integration_method="euler"'
    ):
        bac.wrap(policy, denoising(3))


def test_trap_11_a_solver_of_diffusion_policies_is_refused():
    with pytest.raises(ScheduleError, match="is a flow-matching policy, which takes Euler, Adams-Bashforth or"):
        bac.wrap(models.smolvla(), bac.Denoising(solver="DPM-Solver++", timesteps=(3, 2)))
    with pytest.raises(ScheduleError, match=r"shares of noise in \(0, 1\]"):
        bac.wrap(models.smolvla(), bac.Denoising(denoising(3).solver, (91, 47, 2)))


def test_trap_5_molmoact2s_modulations_are_kept_by_our_times_too():
    """It keeps them by number of steps alone: what is stale would be taken, put on and taken off."""
    policy = heads.make(heads.MolmoAct2)
    expert, key = policy._action_expert(), ("steps", 3)

    def modulation(times: tuple[float, ...]) -> Tensor:
        made = expert.get_or_prepare_modulation_cache([torch.tensor([t]) for t in times], cache_key=key)
        return torch.stack([one.conditioning for one in made])

    even = (0.0, 1 / 3, 2 / 3)
    own = modulation(even)
    bac.wrap(policy, denoising(3), replay=False)
    assert torch.equal(modulation(even), own)  # outside a run they are its own
    run = stack_on(policy, "predict_action_chunk")
    run = next(found.run for found in run if isinstance(found, FlowInterceptor))
    run.begin()
    ours = modulation(even)
    run.end()
    bac.unwrap(policy)
    assert torch.equal(modulation(even), own)
    expert._modulation_cache_key = None
    assert torch.equal(modulation(tuple(1 - t for t in TIMES[3])), ours)


def test_trap_8_what_lerobot_compiled_is_refused():
    policy = models.smolvla()
    policy.model.sample_actions = torch.compile(policy.model.sample_actions, backend="eager")
    with pytest.raises(UnsupportedPolicyError, match="compile_model=False"):
        bac.wrap(policy, denoising(3))


def test_trap_10_evo1_starts_from_uniform_noise_and_its_own_draws_are_kept():
    contract, policy = TestEVO1(), heads.make(heads.EVO1)
    steps = contract.watch(policy)
    bac.wrap(policy, denoising(3), replay=False)
    contract.predict(policy, 1, seed=7)
    torch.manual_seed(7)
    assert torch.equal(steps[0].sample, (torch.rand(1, 10) * 2 - 1).view(1, 5, 2))


@pytest.mark.parametrize("name", ["ee6d", "joint", "bimanual"])
def test_trap_7_xvlas_grippers_are_found_and_passed_on_as_predicted_last(name):
    from lerobot.policies.xvla.action_hub import ACTION_REGISTRY

    space = ACTION_REGISTRY[next(known for known in ACTION_REGISTRY if name in known)]()
    policy = heads.make(heads.XVLA)
    policy.model.action_space, policy.model.dim_action = space, space.dim_action
    assert find_host(policy).flow.as_predicted == tuple(space.gripper_idx)


FITTED = {
    "smolvla": TestSmolVLA,
    "groot": TestGroot,  # with buckets of times
    "fastwam": TestFastWAM,  # whose observations come in runs of their own
    "xvla": TestXVLA,  # whose own steps are the reference
}


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", FITTED)
def test_a_fit_ends_nearer_to_the_reference_than_the_policys_solver_at_the_same_times(name):
    contract, times = FITTED[name], (0.8, 0.2)
    policy = contract.kit.make_policy()
    fitter = FlowFitter(find_host(policy), lambda: contract().predict(policy, 3), 20)
    fit = fitter.fit(times)
    assert len(fit.errors) == 3
    # What the fit says of its error is what a run with its coefficients has.
    torch.testing.assert_close(fitter.at(fit.solver, times).errors, fit.errors, rtol=1e-3, atol=1e-6)
    assert fit.error < 0.75 * fitter.at(AdamsBashforth(1), times).error
    bac.wrap(policy, bac.Denoising(fit.solver, times), replay=False)
    assert torch.isfinite(contract().predict(policy, 3)).all()
