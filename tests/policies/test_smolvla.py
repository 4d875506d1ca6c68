"""SmolVLA, small: its words, its loss, its training and its checkpoint."""

from functools import partial

import pytest
import torch
from lerobot.utils.constants import (
    ACTION,
    OBS_ENV_STATE,
    OBS_IMAGE,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
)

import policies
from policies.demonstrations import Demonstrations, find_demonstrations
from policies.recipes.flow import flow_loss
from policies.recipes.pictures import newest, varied, vary
from policies.recipes.smolvla import encode
from policies.recipes.where import ANSWER
from policies.small_vlm import word_tokenizer
from policies.train import train
from policies.trainer import Trainer
from tests.policies.smolvla import SENTENCES, options_for, write_recordings


@pytest.fixture
def options(tmp_path):
    write_recordings(tmp_path)
    return partial(options_for, tmp_path)


def demonstrations(folder):
    return Demonstrations.join([Demonstrations.load(p, pictures=True) for p in find_demonstrations(f"{folder}/*.zarr")])


def test_joined_recordings_keep_their_episodes_their_words_and_their_last_episodes_held_out(options, tmp_path):
    joined = demonstrations(tmp_path)
    assert joined.episode_ends.tolist() == [11, 24, 41, 47, 66]
    assert joined.words() == [SENTENCES[0]] * 24 + [SENTENCES[1]] * 42
    assert joined.held_out(0.05).tolist() == [False, True, False, False, True]
    assert joined.attrs["task"] == "task-0, task-1"
    assert joined.pictures.shape == (66, 10, 10, 3)


def test_a_pattern_that_matches_nothing_names_the_command_that_records():
    with pytest.raises(FileNotFoundError, match=r"nothing/\*.zarr: no demonstrations here. .*python -m envs.collect"):
        find_demonstrations("nothing/*.zarr")


def test_the_tokenizer_has_one_token_for_each_word_and_the_newline():
    tokenizer = word_tokenizer(SENTENCES)
    told = tokenizer("turn a Drawer counter-clockwise\n")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(told) == ["turn", "a", "drawer", "counter-clockwise", "\n"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("open zebras")["input_ids"]) == ["open", "<unk>"]


def test_a_shifted_picture_holds_the_same_pixels_elsewhere():
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 6, 6)
    shifted = vary(picture, 2, light=0.0, noise=0.0)
    padded = torch.nn.functional.pad(picture, (2, 2, 2, 2), mode="replicate")
    corners = [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[..., y : y + 6, x : x + 6], shifted)]
    assert len(corners) == 1


@pytest.mark.slow
def test_the_loss_of_one_draw_is_lerobots_own_and_so_is_its_gradient(options, tmp_path):
    trainer = Trainer(options("run"), demonstrations(tmp_path))
    batch = newest(trainer.windows.batch(torch.tensor([0, 9, 30])))
    assert batch["action_is_pad"].any()
    noise, time = torch.randn(3, 5, 4), torch.tensor([0.2, 0.5, 0.9])
    losses = (
        flow_loss(trainer.policy, batch, encode, 1, noise=noise, time=time),
        trainer.policy(dict(batch), noise=noise, time=time)[0],
    )
    gradients = []
    for loss in losses:
        trainer.policy.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.policy.parameters() if p.grad is not None]))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_asking_where_things_are_adds_its_loss_and_no_weights(options, tmp_path):
    asked, plain = (Trainer(options("run", f"where={weight}"), demonstrations(tmp_path)) for weight in (2.0, 0))
    batch = asked.windows.batch(torch.tensor([0, 9, 30]))
    losses = []
    for recipe in (asked.recipe, plain.recipe):
        torch.manual_seed(0)  # the same noise, the same light on the pictures
        losses.append(recipe.loss(plain.policy, dict(batch)).item())
    torch.manual_seed(0)
    seen = varied(newest(batch), 1)
    answer = asked.recipe._where.loss(encode(plain.policy, seen).summary, seen[ANSWER]).item()
    assert losses[0] - losses[1] == pytest.approx(2 * answer, rel=1e-4)
    assert asked.policy.state_dict().keys() == plain.policy.state_dict().keys()
    assert ANSWER not in plain.windows.tensors and OBS_ENV_STATE not in asked.windows.tensors


@pytest.mark.slow
def test_training_writes_a_checkpoint_that_loads_from_elsewhere_and_acts_by_picture_state_and_words(options, tmp_path):
    trainer = train(options("run"))
    assert [row["step"] for row in trainer.rows] == [2, 4]
    (tmp_path / "run").rename(tmp_path / "moved")
    policy, preprocessor, postprocessor = policies.load(tmp_path / "moved", num_inference_steps=3)
    assert policy.config.num_steps == 3
    with pytest.raises(ValueError, match="solver=DDIM: SmolVLA takes Euler steps"):
        policies.set_steps(policy, 4, "DDIM")
    seen = {OBS_STATE: torch.zeros(2, 3), OBS_IMAGE: torch.zeros(2, 3, 10, 10), "task": list(SENTENCES)}
    batch = preprocessor(seen)
    assert batch[OBS_LANGUAGE_TOKENS].shape == (2, 4)
    assert batch[OBS_LANGUAGE_ATTENTION_MASK].sum(1).tolist() == [4, 4]
    actions = postprocessor(policy.predict_action_chunk(batch, noise=torch.zeros(2, 5, 4)))
    assert actions.shape == (2, 5, 4)
    assert not torch.equal(actions[0], actions[1])  # the words alone differ
    card = (tmp_path / "moved/README.md").read_text()
    assert "# SmolVLA-class policy on assembly-v3" in card
    assert "2 Euler steps" in card
    assert f"lerobot-eval --policy.path={tmp_path}/run --env.type=bac_toy --env.task=TASK --env.pixels=10 " in card


@pytest.mark.slow
def test_a_resumed_run_keeps_its_words_and_statistics_and_ends_where_an_uninterrupted_one_does(options, tmp_path):
    whole = train(options("whole"))
    interrupted = Trainer(options("part"), demonstrations(tmp_path))
    for _ in range(2):
        interrupted.update()
    interrupted.save(tmp_path / "part.pt", tmp_path / "part")
    resumed = train(options("part", "resume=true"))
    for name, parameter in whole.averaged.named_parameters():
        assert torch.equal(parameter, resumed.averaged.state_dict()[name]), name
    more = Trainer(
        options("part", "resume=true"), Demonstrations.load(tmp_path / "0.zarr", pictures=True), interrupted.stats
    )
    assert torch.equal(more.windows.tensors[ACTION], interrupted.windows.tensors[ACTION][:24])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pictures=false", "pictures and instructions, and these have none"),
        ("dtype=bfloat16", "with dtype=float32"),
        ("vlm.image_size=10", "vlm.image_size=10: must be a multiple of 4"),
    ],
)
def test_what_smolvla_cannot_learn_from_is_refused(options, override, message):
    with pytest.raises(ValueError, match=message):
        train(options("run", override))
