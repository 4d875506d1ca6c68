"""Solvers of few steps within the loops of LeRobot's flow-matching policies."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.adapters.flow import Through
from bac.solvers import Multistep
from tests.contracts_flow import FlowContract, Step, spy
from tests.lerobot import test_action_heads, test_multi_task_dit, test_pi, test_smolvla, test_wall_x

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")

pytestmark = pytest.mark.slow


class TestSmolVLA(FlowContract):
    kit = test_smolvla.TestSmolVLA()


class TestPi0(FlowContract):
    kit = test_pi.TestPi0()


class TestPi05(FlowContract):
    kit = test_pi.TestPi05()


class TestMultiTaskDiT(FlowContract):
    kit = test_multi_task_dit.TestFlowWithEuler()
    rising = True

    def actions(self, sample: Tensor) -> Tensor:
        return sample[:, 1:6]  # from the newest of two observations on


class TestGroot(FlowContract):
    kit = test_action_heads.TestGroot()
    rising, buckets, replays = True, 1000, False


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
    replays = False


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
        """The first noise is what the clean actions of the step before leave of the sample."""
        times = [1 - step / 7 for step in range(7)]
        rows: list[tuple[float, ...]] = []
        for here, after in zip(times, [*times[1:], 0.0], strict=True):
            kept = after / here
            rows.append((1 - after, 0.0, kept, -kept * (1 - here), 0.0)[: 5 if rows else 3])
        return bac.Denoising(Multistep(tuple(rows)), times)


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # it asks for autocast on a device that is not there
class TestFastWAM(FlowContract):
    """Its scheduler is an object of its own, for which another is swapped in; a batch is one run after the other."""

    kit = test_action_heads.TestFastWAM()
    replays = False
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
    rising, replays = True, False
