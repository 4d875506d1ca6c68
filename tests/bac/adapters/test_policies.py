"""Known policy classes, with their own samplers and noise schedulers."""

from __future__ import annotations

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from torch import nn

import bac
from bac.adapters import find_host
from bac.errors import MismatchError
from policies.diffusion_transformer import DiffusionTransformerConfig
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
from tests.contracts import AdapterContract

pytestmark = pytest.mark.slow


class TestDiffusionTransformerDDPM(AdapterContract):
    num_steps = 7
    solver = "DDPM"
    options = {"norm_first": True}

    def make_policy(self) -> nn.Module:
        torch.manual_seed(3)
        config = DiffusionTransformerConfig(
            n_layer=2,
            n_head=3,
            n_emb=18,
            horizon=11,
            n_action_steps=5,
            input_features={
                "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
                "observation.environment_state": PolicyFeature(FeatureType.ENV, (7,)),
            },
            output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
            device="cpu",
            **self.options,
        )
        policy = DiffusionTransformerPolicy(config).eval()
        policy.diffusion.use_solver(self.solver, self.num_steps)
        return policy

    def make_batch(self, batch_size: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(batch_size)
        sizes = {"observation.state": 3, "observation.environment_state": 7}
        return {key: torch.rand(batch_size, 2, size, generator=generator) for key, size in sizes.items()}

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.diffusion.num_inference_steps = num_steps

    def test_the_fingerprint_knows_solver_and_timesteps(self) -> None:
        policy = self.make_policy()
        fingerprint = find_host(policy).fingerprint()
        assert fingerprint.solver == type(policy.diffusion.noise_scheduler).__name__
        assert fingerprint.timesteps == tuple(map(float, policy.diffusion.noise_scheduler.timesteps))
        assert (fingerprint.num_steps, fingerprint.dtype) == (self.num_steps, "float32")

    def test_a_schedule_for_another_solver_is_refused(self) -> None:
        policy = self.make_policy()
        schedule = self.staggered(policy)
        policy.diffusion.use_solver("DDIM" if self.solver == "DDPM" else "DDPM", self.num_steps)
        with pytest.raises(MismatchError, match="solver: the schedule has"):
            bac.wrap(policy, schedule)

    def test_wrapping_works_in_inference_mode_and_with_gradients(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        expected = self.predict(policy)
        torch.manual_seed(0)
        with torch.inference_mode():
            assert torch.equal(policy.predict_action_chunk(self.make_batch(3)), expected)
        torch.manual_seed(0)
        with torch.enable_grad():  # past the policy's own no_grad, as real-time chunking does
            chunk = policy.diffusion.generate_actions(self.make_batch(3))
        assert chunk.requires_grad and torch.equal(chunk.detach(), expected)

    def test_one_generator_per_row_makes_rows_independent_of_each_other(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        batch = self.make_batch(3)
        together = policy.predict_action_chunk(batch, generator=[torch.Generator().manual_seed(i) for i in range(3)])
        last = {key: value[2:] for key, value in batch.items()}
        alone = policy.predict_action_chunk(last, generator=[torch.Generator().manual_seed(2)])
        torch.testing.assert_close(alone[0], together[2])


class TestDiffusionTransformerNormLast(TestDiffusionTransformerDDPM):
    options = {"norm_first": False}


class TestDiffusionTransformerDDIM(TestDiffusionTransformerDDPM):
    solver = "DDIM"


class TestDiffusionTransformerDPMSolver(TestDiffusionTransformerDDPM):
    solver = "DPM-Solver++"


class TestDiffusionTransformerConditionEncoder(TestDiffusionTransformerDDPM):
    options = {"n_cond_layers": 1}


class TestDiffusionTransformerFlow(TestDiffusionTransformerDDPM):
    solver = "FlowMatchEuler"
    options = {"noise_scheduler_type": "FlowMatchEuler", "prediction_type": "velocity"}
    takes_fewer_steps = True

    def test_a_schedule_for_another_solver_is_refused(self) -> None:
        """No other noise scheduler is for a velocity; this is the schedule of a diffusion policy."""
        schedule = self.staggered(TestDiffusionTransformerDDPM().make_policy())
        with pytest.raises(MismatchError, match="solver: the schedule has"):
            bac.wrap(self.make_policy(), schedule)
