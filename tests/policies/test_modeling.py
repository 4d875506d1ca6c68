import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

import policies
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from tests.policies.models import (
    ACTIONS,
    ENVIRONMENT,
    EXECUTED,
    HORIZON,
    STATE,
    observations,
    small_config,
    small_policy,
)

STATS = {
    OBS_STATE: {"min": [0.0, -2.0, 5.0], "max": [4.0, 2.0, 5.0 + 1e-6]},
    OBS_ENV_STATE: {"min": [0.0] * ENVIRONMENT, "max": [1.0] * ENVIRONMENT},
    ACTION: {"min": [-3.0] * ACTIONS, "max": [5.0] * ACTIONS},
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Silent(torch.nn.Module):
    """A denoiser that predicts no noise and counts its evaluations."""

    evaluations = 0

    def forward(self, sample, timestep, cond):
        self.evaluations += 1
        return torch.zeros_like(sample)


def silent_policy(**options):
    policy = small_policy(**options)
    policy.diffusion.transformer = Silent()
    return policy


def test_a_chunk_is_the_horizon_from_the_current_step_on():
    policy, batch = small_policy(), observations(3)
    cond = policy.diffusion.encode_observations(batch)
    whole = policy.diffusion.conditional_sample(3, cond, generator=seeded(0))
    chunk = policy.predict_action_chunk(batch, generator=seeded(0))
    assert whole.shape == (3, HORIZON, ACTIONS)
    assert torch.equal(chunk, whole[:, 1 : 1 + EXECUTED])


def test_an_observation_is_the_state_then_the_environment_state():
    batch = observations(3)
    cond = small_policy().diffusion.encode_observations(batch)
    assert torch.equal(cond[..., :STATE], batch[OBS_STATE])
    assert torch.equal(cond[..., STATE:], batch[OBS_ENV_STATE])


def test_given_noise_replaces_the_first_draw():
    policy, batch = small_policy(noise_scheduler_type="DDIM"), observations(3)
    noise = torch.randn(3, HORIZON, ACTIONS, generator=seeded(0))
    assert torch.equal(
        policy.predict_action_chunk(batch, noise=noise), policy.predict_action_chunk(batch, generator=seeded(0))
    )


@pytest.mark.parametrize("solver", ["DDPM", "DDIM", "DPM-Solver++"])
def test_with_a_generator_per_row_a_row_draws_as_if_alone(solver):
    policy, batch = silent_policy(noise_scheduler_type=solver), observations(3)
    together = policy.predict_action_chunk(batch, generator=[seeded(5), seeded(6), seeded(7)])
    for row, seed in enumerate((5, 6, 7)):
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        assert torch.equal(policy.predict_action_chunk(alone, generator=[seeded(seed)])[0], together[row])


@pytest.mark.parametrize("solver", ["DDPM", "DDIM", "DPM-Solver++"])
@pytest.mark.parametrize("num_steps", [1, 3, 20])
def test_a_run_makes_exactly_as_many_evaluations_as_steps(solver, num_steps):
    policy = silent_policy()
    policy.diffusion.use_solver(solver, num_steps)
    policy.predict_action_chunk(observations(2))
    assert policy.diffusion.transformer.evaluations == num_steps


def test_use_solver_refuses_another_number_of_timesteps_than_steps_and_keeps_the_old_solver():
    policy = small_policy()
    before = policy.diffusion.noise_scheduler
    for timesteps in ([9, 5], [9, 7, 5, 1]):
        with pytest.raises(ValueError, match=f"as many as num_inference_steps, 3, got {len(timesteps)}"):
            policy.diffusion.use_solver("DDIM", 3, timesteps=timesteps)
    assert (policy.diffusion.noise_scheduler, policy.diffusion.num_inference_steps) == (before, 5)


def test_use_solver_refuses_more_steps_than_noise_levels_and_keeps_the_old_solver():
    policy = small_policy()
    before = policy.diffusion.noise_scheduler
    with pytest.raises(ValueError, match="num_inference_steps: must be in 1..100, got 101"):
        policy.diffusion.use_solver("DDIM", 101)
    assert policy.diffusion.noise_scheduler is before
    assert policy.diffusion.num_inference_steps == 5


def test_actions_are_handed_out_one_by_one_and_a_new_chunk_is_made_when_they_are_used_up():
    policy = silent_policy()
    steps = [{key: value[:, 0] for key, value in observations(3).items()}] * (EXECUTED + 1)
    actions = [policy.select_action(step, generator=seeded(0)) for step in steps]
    policy.reset()
    chunk = policy.predict_action_chunk(observations(3), generator=seeded(0))
    assert torch.equal(torch.stack(actions[:EXECUTED], 1), chunk)
    assert torch.equal(actions[EXECUTED], chunk[:, 0])
    assert policy.diffusion.transformer.evaluations == 3 * 5


def test_the_first_observation_fills_the_queue_and_later_ones_push_it_out():
    policy, batch = small_policy(), observations(3)
    first, second = ({key: value[:, i] for key, value in batch.items()} for i in (0, 1))
    repeated = {key: value[:, :1].expand(-1, 2, -1) for key, value in batch.items()}
    online = policy.select_action(first, generator=seeded(0))
    for _ in range(EXECUTED - 1):
        policy.select_action(first)
    later = policy.select_action(second, generator=seeded(1))
    policy.reset()
    assert torch.equal(online, policy.predict_action_chunk(repeated, generator=seeded(0))[:, 0])
    assert torch.equal(later, policy.predict_action_chunk(batch, generator=seeded(1))[:, 0])


def test_the_loss_of_predicting_no_noise_is_the_noise_squared():
    policy = silent_policy()
    batch = {**observations(3), ACTION: torch.zeros(3, HORIZON, ACTIONS)}
    batch["action_is_pad"] = torch.zeros(3, HORIZON, dtype=torch.bool)
    torch.manual_seed(0)
    loss, output = policy(batch)
    torch.manual_seed(0)
    assert loss.item() == pytest.approx(torch.randn(3, HORIZON, ACTIONS).square().mean().item())
    assert output is None


def test_padded_actions_leave_the_loss_when_masked():
    policy = silent_policy(do_mask_loss_for_padding=True)
    padded = torch.arange(HORIZON).expand(3, -1) >= 4
    batch = {**observations(3), ACTION: torch.zeros(3, HORIZON, ACTIONS), "action_is_pad": padded}
    torch.manual_seed(0)
    loss, _ = policy(batch)
    torch.manual_seed(0)
    assert loss.item() == pytest.approx(torch.randn(3, HORIZON, ACTIONS)[:, :4].square().mean().item())


def test_a_wrong_number_of_observation_steps_is_refused():
    batch = {key: value[:, :1] for key, value in observations(3).items()}
    with pytest.raises(ValueError, match=r"must be \[batch, 2 observation steps, size\], got \[3, 1, 3\]"):
        small_policy().predict_action_chunk(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_action_steps": 11}, "at most horizon - n_obs_steps \\+ 1 = 10 actions"),
        ({"n_emb": 27}, "n_emb: must be even and a multiple of n_head"),
        ({"p_drop_attn": 1.0}, r"p_drop_attn: must be in \[0, 1\)"),
        ({"noise_scheduler_type": "Euler"}, "noise_scheduler_type: must be one of DDPM, DDIM"),
        ({"prediction_type": "v"}, "prediction_type: must be one of epsilon, sample"),
        ({"timestep_spacing": "log"}, "timestep_spacing: must be one of leading"),
        ({"num_inference_steps": 101}, "num_inference_steps: must be in 1..num_train_timesteps"),
        ({"crop_ratio": 0.0}, r"crop_ratio: must be in \(0, 1\]"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        small_config(**options)


def test_a_policy_without_state_is_refused():
    with pytest.raises(ValueError, match="needs the features 'observation.state' and 'action', got"):
        small_policy(input_features={OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (ENVIRONMENT,))})


def test_trained_windows_stop_where_the_executed_actions_would_run_past_the_end():
    assert small_config().drop_n_last_frames == HORIZON - EXECUTED - 2 + 1
    assert small_config(drop_n_last_frames=0).drop_n_last_frames == 0


def test_normalisation_maps_the_limits_to_one_and_leaves_constant_dimensions_unscaled():
    preprocessor, _ = make_diffusion_transformer_pre_post_processors(small_config(), STATS)
    batch = {OBS_STATE: torch.tensor([[4.0, 0.0, 5.001]]), OBS_ENV_STATE: torch.zeros(1, ENVIRONMENT)}
    normalised = preprocessor(batch)
    torch.testing.assert_close(normalised[OBS_STATE], torch.tensor([[1.0, 0.0, 0.001]]), rtol=0, atol=1e-5)
    assert torch.equal(normalised[OBS_ENV_STATE], -torch.ones(1, ENVIRONMENT))


def test_a_saved_policy_loads_with_its_processors(tmp_path):
    policy = small_policy()
    processors = make_diffusion_transformer_pre_post_processors(policy.config, STATS)
    policy.save_pretrained(tmp_path)
    for processor, side in zip(processors, ("pre", "post"), strict=True):
        processor.save_pretrained(tmp_path, config_filename=f"policy_{side}processor.json")
    loaded = policies.load(tmp_path)
    batch = observations(3)
    assert not loaded.policy.training
    assert torch.equal(
        loaded.policy.predict_action_chunk(batch, generator=seeded(0)),
        policy.predict_action_chunk(batch, generator=seeded(0)),
    )
    assert torch.equal(loaded.preprocessor(dict(batch))[OBS_STATE], processors[0](dict(batch))[OBS_STATE])
    assert torch.equal(loaded.postprocessor(torch.ones(3, ACTIONS)), torch.full((3, ACTIONS), 5.0))
    quick = policies.load(tmp_path, solver="DPM-Solver++", num_inference_steps=13).policy.diffusion
    assert (type(quick.noise_scheduler).__name__, quick.num_inference_steps) == ("DPMSolverMultistepScheduler", 13)


def test_importing_policies_imports_neither_lerobot_nor_torch():
    code = "import policies, sys; sys.exit(' '.join(m for m in ('lerobot', 'torch', 'diffusers') if m in sys.modules))"
    root = Path(policies.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stderr.strip() == ""


def test_the_package_that_lerobot_imports_whole_needs_only_lerobot_and_diffusers():
    code = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(("omegaconf", "hydra", "matplotlib", "metaworld"), None))  # importing one fails
import policies.diffusion_transformer as package
for module in pkgutil.iter_modules(package.__path__, "policies.diffusion_transformer."):
    importlib.import_module(module.name)
"""
    root = Path(policies.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_loading_from_an_empty_folder_names_the_command_that_fills_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json is missing.*python -m policies.train task=nothing"):
        policies.load(tmp_path / "nothing")


def test_loading_another_policy_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"type": "act", "device": "cpu"}')
    with pytest.raises(ValueError, match="this is a 'act' checkpoint"):
        policies.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("separate", [True, False])
def test_images_of_all_cameras_join_the_observation(separate):
    images = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 32, 40)) for name in ("left", "top")}
    inputs = {OBS_STATE: PolicyFeature(FeatureType.STATE, (STATE,)), **images}
    policy = small_policy(
        input_features=inputs, use_separate_rgb_encoder_per_camera=separate, spatial_softmax_num_keypoints=17
    )
    batch = {OBS_STATE: observations(2)[OBS_STATE]}
    batch |= {key: torch.rand(2, 2, 3, 32, 40, generator=seeded(i)) for i, key in enumerate(images)}
    encoded = policy.diffusion.encode_observations(policy._stack_cameras(batch))
    first, last = policy.diffusion.rgb_encoders[0], policy.diffusion.rgb_encoders[-1]
    left, top = (batch[key][:, 1] for key in images)
    torch.testing.assert_close(encoded[:, 1, STATE : STATE + 34], first(left), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded[:, 1, STATE + 34 :], last(top), rtol=1e-4, atol=1e-5)
    assert len(policy.diffusion.rgb_encoders) == (2 if separate else 1)
    assert policy.predict_action_chunk(batch).shape == (2, EXECUTED, ACTIONS)
