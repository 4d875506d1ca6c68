"""DP-T trained by flow matching."""

import hydra
import pytest
import torch
from lerobot.utils.constants import ACTION

from policies.diffusion_transformer.solvers import make_noise_scheduler, set_timesteps
from policies.train import train
from tests.policies.models import ACTIONS, HORIZON, observations, small_config, small_policy, write_demonstrations
from tests.policies.test_train import CONFIGS, SMALL

FLOW = {"noise_scheduler_type": "FlowMatchEuler", "prediction_type": "velocity"}


@pytest.fixture
def policy():
    return small_policy(**FLOW)


def test_a_run_is_eulers_method_by_hand_in_even_steps_from_noise_to_actions(policy):
    batch, sampler = observations(3), policy.diffusion
    noise = torch.randn(3, HORIZON, ACTIONS, generator=torch.Generator().manual_seed(2))
    cond = sampler.encode_observations(batch)
    x = noise
    for share in (1.0, 0.8, 0.6, 0.4, 0.2):
        x = x - 0.2 * sampler.transformer(x, torch.tensor(100 * share), cond)
    torch.testing.assert_close(sampler.conditional_sample(3, cond, noise=noise), x)


@pytest.mark.parametrize("num_steps", [1, 3, 10])
def test_any_number_of_steps_is_even_and_ends_at_clean_actions(num_steps):
    scheduler = make_noise_scheduler(small_config(**FLOW), "FlowMatchEuler")
    set_timesteps(scheduler, num_steps)
    expected = [1 - step / num_steps for step in range(num_steps + 1)]
    assert scheduler.sigmas.tolist() == pytest.approx(expected, abs=1e-6)
    assert scheduler.timesteps.tolist() == pytest.approx([100 * share for share in expected[:-1]], abs=1e-4)


def test_the_loss_of_predicting_no_velocity_is_noise_minus_actions_squared(policy):
    policy.diffusion.transformer.forward = lambda sample, timestep, cond: torch.zeros_like(sample)
    batch = {**observations(3), ACTION: torch.full((3, HORIZON, ACTIONS), 2.0)}
    torch.manual_seed(0)
    loss, _ = policy(batch)
    torch.manual_seed(0)
    assert loss.item() == pytest.approx((torch.randn(3, HORIZON, ACTIONS) - 2.0).square().mean().item())


def test_the_denoiser_is_trained_at_the_share_of_noise_that_it_is_told(policy):
    """Actions are 0 and noise is 1, so a noisy action is its share of noise."""
    told = []
    policy.diffusion.transformer.forward = lambda sample, timestep, cond: told.append((sample, timestep)) or sample
    batch = {key: value.repeat(200, 1, 1) for key, value in observations(3).items()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "randn_like", torch.ones_like)
        policy({**batch, ACTION: torch.zeros(600, HORIZON, ACTIONS)})
    noisy, timestep = told[0]
    torch.testing.assert_close(100 * noisy[:, 0, 0], timestep)
    assert timestep.min() >= 0.1 and timestep.max() <= 100  # never at clean actions
    assert timestep.mean() == pytest.approx(60, abs=3)  # of Beta(1.5, 1): noisier than even


def test_ten_steps_are_the_usual_number():
    assert small_config(**FLOW, num_inference_steps=None).num_inference_steps == 10


@pytest.mark.parametrize("options", [{"prediction_type": "velocity"}, {"noise_scheduler_type": "FlowMatchEuler"}])
def test_velocity_and_the_flows_scheduler_are_refused_without_each_other(options):
    with pytest.raises(ValueError, match="'velocity' and noise_scheduler_type 'FlowMatchEuler' go together"):
        small_config(**options)


def test_a_solver_of_diffusion_is_refused_and_so_is_the_flows_for_a_denoiser_of_noise(policy):
    for other, name in ((policy, "DDIM"), (small_policy(), "FlowMatchEuler")):
        with pytest.raises(ValueError, match=f"got '{name}' for a denoiser that predicts"):
            other.diffusion.use_solver(name, 5)
    with pytest.raises(ValueError, match=r"bac\.Denoising\(solver='Euler'"):
        policy.diffusion.use_solver("FlowMatchEuler", 2, timesteps=(80, 20))


@pytest.mark.slow
def test_training_lowers_the_loss_and_its_checkpoint_is_a_flows(tmp_path):
    write_demonstrations(tmp_path / "demo.zarr", lengths=[23, 19, 29, 31, 37])
    paths = [f"data={tmp_path}/demo.zarr", f"output={tmp_path}/run", f"state={tmp_path}/run.pt"]
    options = [f"policy.{name}={value}" for name, value in FLOW.items()]
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        config = hydra.compose("train", [*SMALL, *paths, *options, "steps=150", "save_every=75", "learning_rate=0.005"])
    trainer = train(config)
    assert trainer.rows[-1]["loss"] < 0.8 * trainer.rows[0]["loss"]
    assert "FlowMatchEuler-10" in (tmp_path / "run/README.md").read_text()
