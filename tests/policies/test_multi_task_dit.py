"""The small Multi-Task DiT: its words, its noise, its loss, its training and its checkpoint."""

from functools import partial

import hydra
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import DiffusionObjective, FlowMatchingObjective
from lerobot.utils.constants import (
    OBS_IMAGE,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
)

import bac
import policies
from policies.demonstrations import OBS_WRIST, Demonstrations, find_demonstrations
from policies.recipes.multi_task_dit import denoising_loss, encode
from policies.recipes.pictures import newest
from policies.recipes.where import ANSWER
from policies.small_multi_task_dit.configuration_small_multi_task_dit import SmallMultiTaskDiTConfig
from policies.small_multi_task_dit.modeling_small_multi_task_dit import SmallMultiTaskDiTPolicy
from policies.train import train
from policies.trainer import Trainer
from tests.policies.smolvla import CONFIGS, SENTENCES, write_recordings

SIZES = {"horizon": 5, "n_action_steps": 3, "num_integration_steps": 2, "hidden_dim": 12, "num_layers": 2}
HALVES = {"patch_size": 5, "vision_width": 8, "vision_layers": 1, "words_width": 16, "tokenizer_max_length": 7}
SMALL = [
    *(f"policy.{name}={size}" for name, size in {**SIZES, **HALVES}.items()),
    *("policy.num_heads=3", "policy.timestep_embed_dim=6", "policy.num_inference_steps=2"),
    *("recipe=multi_task_dit", "shift=1", "batch_size=7", "steps=4", "save_every=2", "log_every=2"),
]
STATE, SEEN, TOLD = 3, 2 * 8, 12  # widths of what the denoiser is told
OBJECTIVES = pytest.mark.parametrize("objective", ["flow_matching", "diffusion"])


def options_for(folder, name, *overrides):
    """Compose `configs/train.yaml` for a tiny Multi-Task DiT, trained on the recordings in `folder`."""
    paths = [f"data={folder}/*.zarr", f"output={folder}/{name}", f"state={folder}/{name}.pt"]
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return hydra.compose("train", [*SMALL, *paths, *overrides])


def demonstrations(folder):
    return Demonstrations.join([Demonstrations.load(p, pictures=True) for p in find_demonstrations(f"{folder}/*.zarr")])


@pytest.fixture
def options(tmp_path):
    write_recordings(tmp_path, wrist=True)
    return partial(options_for, tmp_path)


@pytest.fixture
def trainer_of(options, tmp_path):
    return lambda *overrides: Trainer(options("run", *overrides), demonstrations(tmp_path))


def randomised(policy):
    """The policy with gates that let its blocks through; they start at zero."""
    torch.manual_seed(3)
    for block in policy.noise_predictor.transformer_blocks:
        torch.nn.init.normal_(block.adaLN_modulation[-1].weight, std=0.5)
    return policy.eval()


def seen_by(count, **more):
    pictures = {OBS_IMAGE: torch.rand(count, 3, 10, 10), OBS_WRIST: torch.rand(count, 3, 10, 10)}
    return {OBS_STATE: torch.rand(count, 3), **pictures, **more}


def batch_of(trainer, *windows):
    return newest(trainer.windows.batch(torch.tensor(windows)))


def gradient_of(policy, loss):
    policy.zero_grad()
    loss.backward()
    given = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()]
    return torch.cat([gradient.flatten() for gradient in given])


@OBJECTIVES
def test_the_loss_of_one_draw_is_lerobots_own_and_so_is_its_gradient(trainer_of, objective):
    trainer = trainer_of(f"policy.objective={objective}")
    policy, batch = trainer.policy, batch_of(trainer, 0, 3, 9)
    assert batch["action_is_pad"].any()
    torch.manual_seed(5)
    ours = denoising_loss(policy, batch, 1)
    torch.manual_seed(5)  # the same draws, in the same order
    theirs, _ = policy({**batch, OBS_STATE: batch[OBS_STATE].unsqueeze(1)})
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient_of(policy, ours), gradient_of(policy, theirs), rtol=1e-4, atol=1e-6)


def test_an_instruction_that_is_too_long_is_refused_and_not_cut_off(trainer_of):
    trainer = trainer_of()
    told = trainer.processors[0]({**seen_by(1), "task": [" ".join(["open"] * 9)]})
    with pytest.raises(ValueError, match="less than max_position_embeddings"):
        trainer.policy.predict_action_chunk({key: v for key, v in told.items() if key.startswith("observation")})


@OBJECTIVES
def test_several_draws_are_those_of_so_many_observations(trainer_of, objective):
    trainer = trainer_of(f"policy.objective={objective}")
    policy, batch = randomised(trainer.policy), batch_of(trainer, 0, 9)
    torch.manual_seed(5)
    both = denoising_loss(policy, batch, 2)
    torch.manual_seed(5)
    twice = denoising_loss(policy, {key: torch.cat([value, value]) for key, value in batch.items()}, 1)
    torch.testing.assert_close(both, twice)


def test_what_is_asked_for_is_read_from_the_pictures_alone(trainer_of):
    trainer = trainer_of()
    policy, where, batch = trainer.policy, trainer.recipe._where, batch_of(trainer, 0, 9)
    with torch.no_grad():
        told = encode(policy, batch)
        losses = []
        for asked in (where, None):
            torch.manual_seed(5)
            losses.append(denoising_loss(policy, batch, 1, where=asked, weight=0.5))
    assert told.shape == (2, STATE + SEEN + TOLD)
    torch.testing.assert_close(told[:, :STATE], batch[OBS_STATE])
    answered = where.loss(told[:, STATE : STATE + SEEN], batch[ANSWER])
    torch.testing.assert_close(losses[0] - losses[1], 0.5 * answered, rtol=1e-4, atol=1e-5)


def test_a_sentence_is_told_from_others_by_every_word_and_not_by_what_pads_it(trainer_of):
    trainer = trainer_of()
    encoder = trainer.policy.observation_encoder.text_encoder
    sentences = ["Open a drawer", "a Open drawer", "Open a", "turn a drawer"]
    batch = trainer.processors[0](seen_by(4, task=sentences))
    tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
    assert mask.sum(1).tolist() == [4, 4, 3, 4]
    read = encoder(tokens, mask)
    apart = torch.cdist(read, read) + 10 * torch.eye(4)
    assert apart.min() > 0.05 * read.norm(dim=1).mean()
    torch.testing.assert_close(encoder(tokens[:, :4], mask[:, :4]), read)
    words = list(encoder.text_encoder.parameters())
    assert not any(weight.requires_grad for weight in words)


@pytest.mark.parametrize(
    ("theirs", "overrides"),
    [
        (FlowMatchingObjective, ["++policy.integration_method=euler"]),
        (FlowMatchingObjective, ["++policy.integration_method=rk4"]),
        (DiffusionObjective, ["policy.objective=diffusion", "policy.noise_scheduler_type=DDIM"]),
        (DiffusionObjective, ["policy.objective=diffusion", "policy.noise_scheduler_type=DDPM"]),
    ],
)
def test_from_the_noise_that_lerobot_draws_a_run_is_lerobots(trainer_of, theirs, overrides):
    policy, told = randomised(trainer_of(*overrides).policy), torch.rand(3, STATE + SEEN + TOLD)
    torch.manual_seed(5)
    with torch.no_grad():
        expected = theirs.conditional_sample(policy.objective, policy.noise_predictor, 3, told)
        torch.manual_seed(5)
        noise = torch.randn(3, 5, 4)  # DDPM goes on drawing
        chunk = policy.objective.conditional_sample(policy.noise_predictor, 3, told, noise=noise)
    assert torch.equal(chunk, expected)


@OBJECTIVES
def test_a_replayed_chunk_from_given_noise_is_bit_equal(trainer_of, objective):
    trainer = trainer_of(f"policy.objective={objective}")
    policy = randomised(trainer.policy)
    batch = trainer.processors[0](seen_by(2, task=list(SENTENCES)))
    noises = torch.randn(3, 2, 5, 4)
    dense = [policy.predict_action_chunk(batch, noise=noise) for noise in noises]
    bac.wrap(policy, replay=bac.Replay(record="first"))
    for noise, expected in zip(noises, dense, strict=True):
        assert torch.equal(policy.predict_action_chunk(batch, noise=noise), expected)
    assert "1 plans, 2 chunks replayed" in str(bac.describe(policy))
    bac.wrap(policy, bac.Denoising(num_steps=2) if objective == "flow_matching" else bac.Denoising(), replay=False)
    assert torch.equal(policy.predict_action_chunk(batch, noise=noises[2]), dense[2])


def test_actions_are_taken_from_a_queue_and_a_window_is_a_lone_observation(trainer_of):
    trainer = trainer_of()
    policy = randomised(trainer.policy)
    batch = trainer.processors[0](seen_by(2, task=list(SENTENCES)))
    torch.manual_seed(5)
    taken = [policy.select_action(batch) for _ in range(3)]
    torch.manual_seed(5)
    noise = torch.randn(2, 5, 4)
    chunk = policy.predict_action_chunk(batch, noise=noise)
    assert torch.equal(torch.stack(taken, 1), chunk)
    window = {key: value.unsqueeze(1) if key in seen_by(1) else value for key, value in batch.items()}
    assert torch.equal(policy.predict_action_chunk(window, noise=noise), chunk)
    policy.select_action({**batch, OBS_STATE: batch[OBS_STATE] + 1})
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), chunk)  # whatever the queues hold


def test_training_writes_a_checkpoint_that_loads_from_elsewhere_here_and_in_lerobot(options, tmp_path):
    trained = train(options("run"))
    assert [row["step"] for row in trained.rows] == [2, 4]
    (tmp_path / "run").rename(tmp_path / "moved")
    policy, preprocessor, postprocessor = policies.load(tmp_path / "moved")
    one = {key: value.expand(2, *value.shape[1:]) for key, value in seen_by(1).items()}
    seen = {**one, "task": list(SENTENCES)}
    noise = torch.zeros(2, 5, 4)
    actions = postprocessor(policy.predict_action_chunk(preprocessor(dict(seen)), noise=noise))
    assert actions.shape == (2, 3, 4)
    assert not torch.equal(actions[0], actions[1])  # the words alone differ
    config = PreTrainedConfig.from_pretrained(tmp_path / "moved")
    theirs = get_policy_class(config.type).from_pretrained(tmp_path / "moved", config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(tmp_path / "moved"))
    assert torch.equal(after(theirs.predict_action_chunk(before(dict(seen)), noise=noise)), actions)
    card = (tmp_path / "moved/README.md").read_text()
    assert "# Multi-Task DiT on assembly-v3" in card
    assert "2 layers of width 12 told by adaLN alone, a vision transformer of width 8 for each\ncamera" in card
    assert "It sees the pictures of\n2 cameras" in card
    assert "Euler-2" in card


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
    assert Trainer(options("part", "resume=true"), fewer).config.sentences == sorted(SENTENCES)


def test_a_flow_takes_other_numbers_of_steps_and_no_solver(options, tmp_path):
    train(options("run", "steps=2"))
    policy, *_ = policies.load(tmp_path / "run", num_inference_steps=3)
    assert policy.config.num_integration_steps == 3
    with pytest.raises(ValueError, match="solver=DDIM: a flow of Multi-Task DiT takes Euler steps"):
        policies.set_steps(policy, 4, "DDIM")


def test_a_diffusion_takes_other_solvers(options, tmp_path):
    train(options("run", "steps=2", "policy.objective=diffusion"))
    policy, preprocessor, _ = policies.load(tmp_path / "run")
    batch, noise = preprocessor(seen_by(2, task=list(SENTENCES))), torch.randn(2, 5, 4)
    own = policy.predict_action_chunk(batch, noise=noise)
    policies.set_steps(policy, 2, "DDIM")
    torch.testing.assert_close(policy.predict_action_chunk(batch, noise=noise), own)
    policies.set_steps(policy, 5, "DDPM", timestep_spacing="trailing")
    policy.predict_action_chunk(batch, noise=noise)
    assert policy.objective.noise_scheduler.timesteps.tolist() == [99, 79, 59, 39, 19]
    with pytest.raises(ValueError, match="FlowMatchEuler' is for denoisers that predict a 'velocity'"):
        policies.set_steps(policy, 2, "FlowMatchEuler")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pictures=false", "Multi-Task DiT learns from pictures and instructions, .* envs.collect env=so101"),
        ("dtype=bfloat16", "with dtype=float32"),
        ("policy.patch_size=4", r"squares, a multiple of patch_size \(4\) high, got 10 x 10"),
        ("policy.vision_width=9", r"vision_width: must be a multiple of vision_heads \(4\), got 9"),
        ("policy.words_width=9", "words_width: must be a multiple of its 4 heads, got 9"),
        ("++policy.n_obs_steps=2", "n_obs_steps: must be 1, for the policy sees one observation, got 2"),
        ("++policy.image_crop_shape=[8,8]", "small_multi_task_dit sees whole pictures"),
        ("policy.tokenizer_max_length=3", "an instruction has 4 tokens with the newline that ends it, got 3"),
    ],
)
def test_what_multi_task_dit_cannot_learn_from_is_refused(options, override, message):
    with pytest.raises(ValueError, match=message):
        train(options("run", override))


def test_a_policy_without_words_is_refused(trainer_of):
    config = SmallMultiTaskDiTConfig(**{**vars(trainer_of().config), "sentences": []})
    with pytest.raises(ValueError, match="sentences: must name the instructions"):
        SmallMultiTaskDiTPolicy(config)
