"""pi0, small: its loss, its training and its checkpoint."""

from functools import partial
from unittest import mock

import hydra
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import OBS_IMAGE, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE

import policies
from policies.demonstrations import OBS_WRIST, Demonstrations, find_demonstrations
from policies.recipes.flow import flow_loss
from policies.recipes.pi0 import encode
from policies.recipes.pictures import newest
from policies.small_pi0.configuration_small_pi0 import SmallPI0Config
from policies.train import train
from policies.trainer import Trainer
from tests.policies.smolvla import CONFIGS, SENTENCES, write_recordings

TOWERS = {"patch_size": 4, "vision_width": 6, "vision_layers": 1, "vision_heads": 2, "layers": 2}
SIZES = {"width": 16, "expert_width": 10, "head_dim": 4, "chunk_size": 5, "n_action_steps": 3, "num_inference_steps": 2}
SMALL = [
    *(f"++policy.{name}={size}" for name, size in {**TOWERS, **SIZES}.items()),
    *("recipe=pi0", "policy.image_resolution=[8,8]", "shift=1"),
    *("batch_size=7", "steps=4", "save_every=2", "log_every=2"),
]


def options_for(folder, name, *overrides):
    """Compose `configs/train.yaml` for a tiny pi0, trained on the recordings in `folder`."""
    paths = [f"data={folder}/*.zarr", f"output={folder}/{name}", f"state={folder}/{name}.pt"]
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return hydra.compose("train", [*SMALL, *paths, *overrides])


@pytest.fixture
def options(tmp_path):
    write_recordings(tmp_path, wrist=True)
    return partial(options_for, tmp_path)


def demonstrations(folder):
    return Demonstrations.join([Demonstrations.load(p, pictures=True) for p in find_demonstrations(f"{folder}/*.zarr")])


@pytest.mark.slow
def test_the_loss_of_one_draw_is_lerobots_own_and_so_is_its_gradient(options, tmp_path):
    trainer = Trainer(options("run"), demonstrations(tmp_path))
    policy, batch = trainer.policy, newest(trainer.windows.batch(torch.tensor([0, 3, 12])))
    assert not batch["action_is_pad"].any()  # LeRobot's loss has no word for padding
    noise, time = torch.randn(3, 5, 4), torch.tensor([0.2, 0.5, 0.9])
    with (
        mock.patch.object(policy.model, "sample_noise", lambda *_: noise),
        mock.patch.object(policy.model, "sample_time", lambda *_: time),
    ):
        losses = flow_loss(policy, batch, encode, 1), policy(batch)[0]
    gradients = []
    for loss in losses:
        policy.zero_grad()
        loss.backward()
        given = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()]
        gradients.append(torch.cat([gradient.flatten() for gradient in given]))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_loss_of_several_draws_is_the_mean_of_each(options, tmp_path):
    trainer = Trainer(options("run"), demonstrations(tmp_path))
    policy, batch = trainer.policy, newest(trainer.windows.batch(torch.tensor([0, 9])))
    assert batch["action_is_pad"].any()  # it is left out
    noise, time = torch.randn(4, 5, 4), torch.tensor([0.2, 0.5, 0.9, 0.7])
    with torch.no_grad():
        both = flow_loss(policy, batch, encode, 2, noise=noise, time=time)
        each = [
            flow_loss(policy, batch, encode, 1, noise=n, time=t)
            for n, t in ((noise[:2], time[:2]), (noise[2:], time[2:]))
        ]
    torch.testing.assert_close(both, torch.stack(each).mean())


@pytest.mark.slow
def test_training_writes_a_checkpoint_that_loads_from_elsewhere_here_and_in_lerobot(options, tmp_path):
    trainer = train(options("run"))
    assert [row["step"] for row in trainer.rows] == [2, 4]
    (tmp_path / "run").rename(tmp_path / "moved")
    policy, preprocessor, postprocessor = policies.load(tmp_path / "moved")
    seen = {OBS_STATE: torch.zeros(2, 3), "task": list(SENTENCES)}
    seen |= {OBS_IMAGE: torch.zeros(2, 3, 10, 10), OBS_WRIST: torch.full((2, 3, 10, 10), 0.5)}
    batch = preprocessor(dict(seen))
    assert batch[OBS_LANGUAGE_TOKENS].shape == (2, 4)
    assert batch[OBS_LANGUAGE_ATTENTION_MASK].sum(1).tolist() == [4, 4]
    actions = postprocessor(policy.predict_action_chunk(batch, noise=torch.zeros(2, 5, 4)))
    assert actions.shape == (2, 5, 4)
    assert not torch.equal(actions[0], actions[1])  # the words alone differ
    config = PreTrainedConfig.from_pretrained(tmp_path / "moved")
    theirs = get_policy_class(config.type).from_pretrained(tmp_path / "moved", config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(tmp_path / "moved"))
    chunk = after(theirs.predict_action_chunk(before(dict(seen)), noise=torch.zeros(2, 5, 4)))
    assert torch.equal(chunk, actions)
    card = (tmp_path / "moved/README.md").read_text()
    assert "# pi0-class policy on assembly-v3" in card
    assert "2 Euler steps. It sees the pictures\nof 2 cameras" in card


@pytest.mark.slow
def test_a_resumed_run_keeps_its_words_and_ends_where_an_uninterrupted_one_does(options, tmp_path):
    whole = train(options("whole"))
    interrupted = Trainer(options("part"), demonstrations(tmp_path))
    for _ in range(2):
        interrupted.update()
    interrupted.save(tmp_path / "part.pt", tmp_path / "part")
    resumed = train(options("part", "resume=true"))
    for name, parameter in whole.averaged.named_parameters():
        assert torch.equal(parameter, resumed.averaged.state_dict()[name]), name
    fewer = Demonstrations.load(tmp_path / "0.zarr", pictures=True)
    for override in ("resume=true", f"initial={tmp_path}/part"):
        name = "part" if override == "resume=true" else "other"
        assert Trainer(options(name, override), fewer).config.sentences == sorted(SENTENCES)


@pytest.mark.slow
def test_the_steps_of_a_loaded_policy_can_be_set_and_its_solver_cannot(options, tmp_path):
    train(options("run", "steps=2"))
    policy, *_ = policies.load(tmp_path / "run", num_inference_steps=3)
    assert policy.config.num_inference_steps == 3
    with pytest.raises(ValueError, match="solver=DDIM: pi0 takes Euler steps"):
        policies.set_steps(policy, 4, "DDIM")


@pytest.mark.slow
def test_a_camera_that_is_missing_is_named_and_not_made_up(options, tmp_path):
    trainer = Trainer(options("run"), demonstrations(tmp_path))
    batch = newest(trainer.windows.batch(torch.tensor([0])))
    del batch[OBS_WRIST]
    with pytest.raises(ValueError, match=f"{OBS_WRIST}: this policy sees it, and the observation has none"):
        trainer.policy.predict_action_chunk(batch)


@pytest.mark.slow
def test_weights_of_other_sizes_are_refused(options, tmp_path):
    train(options("run", "steps=2"))
    config = PreTrainedConfig.from_pretrained(tmp_path / "run")
    config.expert_width = 12
    with pytest.raises(RuntimeError, match="size mismatch for model.action_in_proj.weight"):
        get_policy_class("small_pi0").from_pretrained(tmp_path / "run", config=config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pictures=false", "pi0 learns from pictures and instructions, .* envs.collect env=so101 pixels=96 wrist=true"),
        ("dtype=bfloat16", "with dtype=float32"),
        (
            "policy.image_resolution=[10,10]",
            r"must be a multiple of patch_size \(4\), got \[10, 10\]",
        ),
        ("++policy.head_dim=3", "head_dim and expert_width: must be even"),
        ("++policy.vision_heads=4", r"vision_width: must be a multiple of vision_heads \(4\), got 6"),
    ],
)
def test_what_pi0_cannot_learn_from_is_refused(options, override, message):
    with pytest.raises(ValueError, match=message):
        train(options("run", override))


def test_a_policy_without_words_is_refused():
    from policies.small_pi0.modeling_small_pi0 import SmallPI0Policy

    with pytest.raises(ValueError, match="sentences: must name the instructions"):
        SmallPI0Policy(SmallPI0Config(device="cpu"))
