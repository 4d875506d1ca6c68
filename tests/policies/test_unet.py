"""The small Diffusion Policy, a U-Net: its loss, its training and its checkpoint."""

from functools import partial

import hydra
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import OBS_IMAGE, OBS_STATE
from torch.nn import functional as F  # noqa: N812

import policies
from policies.demonstrations import OBS_WRIST, Demonstrations
from policies.recipes.pictures import newest
from policies.recipes.unet import denoising_loss, encode
from policies.recipes.where import ANSWER
from policies.train import train
from policies.trainer import Trainer
from tests.policies.smolvla import CONFIGS, write_recordings

SIZES = {"horizon": 4, "n_action_steps": 3, "num_inference_steps": 2, "spatial_softmax_num_keypoints": 5}
# With fewer channels the U-Net normalises each one by itself, and gradients in float32 are mostly rounding.
WIDTHS = ["policy.down_dims=[16,24]", "policy.vision_widths=[2,3]", "++policy.diffusion_step_embed_dim=6"]
SMALL = [
    *(f"policy.{name}={size}" for name, size in SIZES.items()),
    "policy.noise_scheduler_type=DDIM",  # draws nothing after the beginning, so one chunk can be made twice
    *("recipe=unet", "shift=1", "batch_size=7", "steps=4", "save_every=2", "log_every=2"),
]


def options_for(folder, name, *overrides):
    """Compose `configs/train.yaml` for a tiny U-Net, trained on one of the recordings in `folder`."""
    paths = [f"data={folder}/1.zarr", f"output={folder}/{name}", f"state={folder}/{name}.pt"]
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return hydra.compose("train", [*SMALL, *WIDTHS, *paths, *overrides])


@pytest.fixture
def options(tmp_path):
    write_recordings(tmp_path, wrist=True)
    return partial(options_for, tmp_path)


@pytest.fixture
def trainer(options, tmp_path):
    return Trainer(options("run"), Demonstrations.load(tmp_path / "1.zarr", pictures=True))


def gradient_of(policy, loss):
    policy.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


@pytest.mark.parametrize("predicted", ["epsilon", "sample"])
def test_the_loss_of_one_draw_is_lerobots_own_and_so_is_its_gradient(trainer, predicted):
    policy, batch = trainer.policy, newest(trainer.windows.batch(torch.tensor([0, 3, 16])))
    policy.config.prediction_type = predicted
    assert batch["action_is_pad"].sum() == 3
    torch.manual_seed(5)
    ours = denoising_loss(policy, batch, 1)
    torch.manual_seed(5)  # the same draws, in the same order
    theirs, _ = policy({**batch, OBS_STATE: batch[OBS_STATE].unsqueeze(1)})
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient_of(policy, ours), gradient_of(policy, theirs), rtol=1e-3, atol=1e-5)


def test_the_loss_of_several_draws_is_the_mean_of_each(trainer):
    policy, batch = trainer.policy, newest(trainer.windows.batch(torch.tensor([0, 16])))
    noise, timesteps = torch.randn(4, 4, 4), torch.tensor([2, 50, 99, 7])
    with torch.no_grad():
        both = denoising_loss(policy, batch, 2, noise=noise, timesteps=timesteps)
        each = [
            denoising_loss(policy, batch, 1, noise=n, timesteps=t)
            for n, t in zip(noise.split(2), timesteps.split(2), strict=True)
        ]
    torch.testing.assert_close(both, torch.stack(each).mean())


def test_what_is_asked_for_is_read_from_the_pictures_alone(trainer):
    policy, batch = trainer.policy, newest(trainer.windows.batch(torch.tensor([0, 9])))
    where, draws = trainer.recipe._where, {"noise": torch.randn(2, 4, 4), "timesteps": torch.tensor([2, 50])}
    with torch.no_grad():
        asked = denoising_loss(policy, batch, 1, where=where, weight=0.5, **draws)
        rest = denoising_loss(policy, batch, 1, **draws)
        seen = encode(policy, batch)
    assert seen.shape == (2, 3 + 2 * 2 * 5)  # the state, then both cameras' keypoints
    torch.testing.assert_close(seen[:, :3], batch[OBS_STATE])
    torch.testing.assert_close(asked - rest, 0.5 * where.loss(seen[:, 3:], batch[ANSWER]), rtol=1e-4, atol=1e-5)


def test_the_vision_tower_is_a_residual_network(trainer):
    tower = trainer.policy.diffusion.rgb_encoder[0].backbone.double()
    first, norm, _, unit = tower
    picture = torch.rand(2, 3, 10, 10, dtype=torch.double)
    x = F.relu(norm(F.conv2d(picture, first.weight, stride=2, padding=3)))
    branch = F.relu(unit.bn1(F.conv2d(x, unit.conv1.weight, padding=1)))
    branch = unit.bn2(F.conv2d(branch, unit.conv2.weight, padding=1))
    shortcut = unit.downsample[1](F.conv2d(x, unit.downsample[0].weight))
    torch.testing.assert_close(tower(picture), F.relu(branch + shortcut))
    assert tower(picture).shape == (2, 3, 5, 5)


def test_training_writes_a_checkpoint_that_loads_from_elsewhere_here_and_in_lerobot(options, tmp_path):
    trained = train(options("run"))
    assert [row["step"] for row in trained.rows] == [2, 4]
    (tmp_path / "run").rename(tmp_path / "moved")
    policy, preprocessor, postprocessor = policies.load(tmp_path / "moved")
    seen = {OBS_STATE: torch.zeros(2, 3), OBS_IMAGE: torch.rand(2, 3, 10, 10), OBS_WRIST: torch.rand(2, 3, 10, 10)}
    chunk = policy.predict_action_chunk(preprocessor(dict(seen)), noise=torch.zeros(2, 4, 4))
    actions = postprocessor(chunk)
    assert actions.shape == (2, 3, 4)
    config = PreTrainedConfig.from_pretrained(tmp_path / "moved")
    theirs = get_policy_class(config.type).from_pretrained(tmp_path / "moved", config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(tmp_path / "moved"))
    assert torch.equal(after(theirs.predict_action_chunk(before(dict(seen)), noise=torch.zeros(2, 4, 4))), actions)
    theirs.reset()
    taken = [theirs.select_action(before(dict(seen)), noise=torch.zeros(2, 4, 4)) for _ in range(3)]
    torch.testing.assert_close(torch.stack(taken, 1), chunk)
    card = (tmp_path / "moved/README.md").read_text()
    assert "# Diffusion Policy (U-Net) on assembly-v3" in card
    assert "U-Net [16, 24], a ResNet [2, 3] for each camera, horizon 4" in card
    assert "It sees the pictures of 2 cameras" in card


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(options, tmp_path):
    whole = train(options("whole"))
    interrupted = Trainer(options("part"), Demonstrations.load(tmp_path / "1.zarr", pictures=True))
    for _ in range(2):
        interrupted.update()
    interrupted.save(tmp_path / "part.pt", tmp_path / "part")
    resumed = train(options("part", "resume=true"))
    for name, parameter in whole.averaged.named_parameters():
        assert torch.equal(parameter, resumed.averaged.state_dict()[name]), name


def test_the_solver_of_a_loaded_policy_can_be_set(options, tmp_path):
    train(options("run", "steps=2"))
    policy, *_ = policies.load(tmp_path / "run")
    seen = {OBS_STATE: torch.zeros(1, 3), OBS_IMAGE: torch.rand(1, 3, 10, 10), OBS_WRIST: torch.rand(1, 3, 10, 10)}
    noise = torch.randn(1, 4, 4)
    own = policy.predict_action_chunk(dict(seen), noise=noise)
    policies.set_steps(policy, 2, "DDIM")
    torch.testing.assert_close(policy.predict_action_chunk(dict(seen), noise=noise), own)
    policies.set_steps(policy, 5, "DDPM", timestep_spacing="trailing")
    assert type(policy.diffusion.noise_scheduler).__name__ == "DDPMScheduler"
    policy.predict_action_chunk(dict(seen), noise=noise)
    assert policy.diffusion.noise_scheduler.timesteps.tolist() == [99, 79, 59, 39, 19]
    with pytest.raises(ValueError, match="FlowMatchEuler' is for denoisers that predict a 'velocity'"):
        policies.set_steps(policy, 2, "FlowMatchEuler")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pictures=false", "the U-Net learns from pictures and instructions, .* envs.collect env=so101"),
        ("dtype=bfloat16", "with dtype=float32"),
        ("data=several", "the U-Net is not told what to do, and these are 2 tasks"),
        ("policy.vision_widths=[4]", r"vision_widths: must name the channels .* got \[4\]"),
        ("++policy.crop_shape=[8,8]", "small_diffusion sees whole pictures"),
    ],
)
def test_what_the_u_net_cannot_learn_from_is_refused(options, tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        train(options("run", f"data={tmp_path}/*.zarr" if override == "data=several" else override))
