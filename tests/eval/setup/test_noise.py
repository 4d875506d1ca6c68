"""Noise is paired: a chunk's draws depend on its own generator, whoever sits beside it and however it is run."""

import pytest
import torch

import bac
from bac.adapters import find_host
from eval.setup.cells import FLOW, Cell, dense
from eval.setup.noise import chunk_generator, paired_chunk, scaled_noise
from tests.lerobot import models

DIFFUSION = {"objective": "diffusion", "noise_scheduler_type": "DDPM", "num_inference_steps": 5}
POLICIES = {
    "U-Net, DDPM": lambda: models.small_diffusion(noise_scheduler_type="DDPM", num_inference_steps=5),
    "Multi-Task DiT, DDPM": lambda: models.small_multi_task_dit(**DIFFUSION),
    "Multi-Task DiT, flow": lambda: models.small_multi_task_dit(objective="flow_matching", num_integration_steps=5),
    "SmolVLA": models.smolvla,
}
DRAWS_LATER = [name for name in POLICIES if "DDPM" in name]


def generators(*seeds):
    return [chunk_generator(seed, 0) for seed in seeds]


@pytest.fixture(params=POLICIES)
def policy(request):
    return POLICIES[request.param]()


def test_a_row_has_the_same_chunk_alone_and_beside_others(policy):
    both = models.observation(2)
    second = {key: value[1:] for key, value in both.items()}
    together, alone = paired_chunk(policy, both, generators(7, 8)), paired_chunk(policy, second, generators(8))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone, paired_chunk(policy, second, generators(9)), atol=1e-3)


def test_pytorchs_own_generator_is_left_alone(policy):
    batch, before = models.observation(2), torch.get_rng_state()
    paired_chunk(policy, batch, generators(7, 8))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("replay", [False, bac.Replay(record="first")])
def test_a_wrapped_policy_draws_the_same_noise(policy, replay):
    batch, draws = models.observation(2), [(7, 8), (9, 10), (11, 12)]
    dense = [paired_chunk(policy, batch, generators(*seeds)) for seeds in draws]
    names = [block.name for block in find_host(policy).blocks]
    everywhere = bac.Schedule(find_host(policy).num_steps, {name: range(find_host(policy).num_steps) for name in names})
    bac.wrap(policy, bac.Denoising() if replay else everywhere, replay=replay)
    for seeds, expected in zip(draws, dense, strict=True):
        assert torch.equal(paired_chunk(policy, batch, generators(*seeds)), expected)
    if replay:
        assert bac.describe(policy).num_replays == 2 and not bac.describe(policy).refusals


@pytest.mark.parametrize("name", DRAWS_LATER)
def test_ddpm_draws_its_start_and_the_noise_of_every_step_but_the_last(name):
    policy, (used,), expected = POLICIES[name](), generators(7), chunk_generator(7, 0)
    paired_chunk(policy, models.observation(1), [used])
    chunk = 1, policy.config.horizon, policy.config.action_feature.shape[0]
    for _ in range(5):  # the start, and four of five steps
        torch.randn(chunk, generator=expected)
    assert torch.equal(used.get_state(), expected.get_state())


@pytest.mark.parametrize("name", DRAWS_LATER)
def test_the_sampler_itself_begins_with_the_generators_noise(name):
    policy, batch = POLICIES[name](), models.observation(1)
    config = policy.config
    start = torch.randn(1, config.horizon, config.action_feature.shape[0], generator=(given := chunk_generator(7, 0)))
    expected = policy.predict_action_chunk(dict(batch), noise=start, generator=[given])
    assert torch.equal(policy.predict_action_chunk(dict(batch), generator=generators(7)), expected)


def test_a_policy_whose_later_noise_cannot_be_paired_is_refused():
    with pytest.raises(TypeError, match="DiffusionPolicy: takes no generator="):
        paired_chunk(models.diffusion(), models.observation(1), generators(7))


@pytest.mark.parametrize("name", ["Multi-Task DiT, flow", "SmolVLA"])
def test_a_flow_may_begin_with_less_noise_and_is_as_it_was_afterwards(name):
    policy, batch = POLICIES[name](), models.observation(2)
    before, itself = set(vars(policy)), paired_chunk(policy, batch, generators(7, 8))
    with scaled_noise(policy, 1.0):
        assert set(vars(policy)) == before
    with scaled_noise(policy, 0.0):
        without = [paired_chunk(policy, batch, generators(*seeds)) for seeds in ((7, 8), (9, 10))]
    assert torch.equal(*without) and not torch.equal(without[0], itself)
    assert set(vars(policy)) == before and torch.equal(paired_chunk(policy, batch, generators(7, 8)), itself)


@pytest.mark.parametrize("name", DRAWS_LATER)
def test_the_noise_of_steps_is_not_scaled(name):
    with pytest.raises(TypeError, match="only that of a flow can be scaled"), scaled_noise(POLICIES[name](), 0.0):
        pass


def test_a_way_is_found_again_unless_its_noise_is_another():
    way, quiet = dense(3, FLOW), Cell("quiet", FLOW, 3, noise_scale=0.5)
    assert "noise_scale" not in way.describe()
    assert quiet.describe() == {**way.describe(), "noise_scale": 0.5}
    assert Cell.from_document(quiet.to_document()) == quiet
