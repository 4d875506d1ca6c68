"""Ways to make chunks agree, with a policy whose actions are its start noise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eval.play.realtime import Pace, hold_of, play_realtime
from eval.play.rollout import EnvPool
from eval.play.smooth import Smoothing, play_smoothly
from eval.setup.noise import chunk_generator
from tests.eval.conftest import CountingWorld

HORIZON, EXECUTED = 11, 5


class Echo:
    """Its chunk is its start noise, `[T, 2]`, but smaller, so that no world is solved."""

    def __init__(self):
        self.config = SimpleNamespace(n_obs_steps=1, n_action_steps=EXECUTED, horizon=HORIZON, image_features={})
        self.diffusion = SimpleNamespace(chunk_shape=(HORIZON, 2))

    def eval(self):
        return self

    def reset(self):
        pass

    def predict_action_chunk(self, batch, noise=None, generator=None):
        if noise is None:
            noise = torch.stack([torch.randn(HORIZON, 2, generator=g) for g in generator])
        return 1e-3 * noise[:, : self.config.n_action_steps]


class Diary(CountingWorld):
    def __init__(self):
        super().__init__()
        self.acted = []

    def step(self, action):
        self.acted.append(float(action[0]))
        return super().step(action)


def loaded():
    return SimpleNamespace(policy=Echo(), preprocessor=lambda batch: batch, postprocessor=lambda chunk: chunk)


def lived(smoothing, delay=0):
    """What was done in the 23 control steps of an episode, without delay in five chunks of five, and its result."""
    diary = Diary()
    (result,) = play_smoothly(loaded(), EnvPool(lambda: diary), [7], Pace((delay,)), hold_of("metaworld"), smoothing)
    return np.array(diary.acted, np.float32), result


def noise_of(chunk_index):
    return 1e-3 * torch.randn(HORIZON, 2, generator=chunk_generator(7, chunk_index)).numpy()[:, 0]


def test_fresh_noise_is_what_every_other_experiment_plays(make_world):
    seeds, pace, hold = [3, 5, 7, 11], Pace((1, 2)), hold_of("metaworld")
    expected = list(play_realtime(loaded(), EnvPool(make_world), seeds, pace, hold, pool_size=3))
    fresh = Smoothing("fresh")
    results = list(play_smoothly(loaded(), EnvPool(make_world), seeds, pace, hold, fresh, pool_size=3))
    assert [(r.seed, r.score, r.num_control_steps) for r in results] == [
        (r.seed, r.score, r.num_control_steps) for r in expected
    ]


def test_the_same_noise_is_that_of_the_first_chunk():
    acted, _ = lived(Smoothing("same", "same"))
    assert acted.tolist() == np.tile(noise_of(0)[:EXECUTED], 5)[:23].tolist()


def test_shifted_noise_gives_a_control_step_the_noise_it_had():
    acted, result = lived(Smoothing("shifted", "shifted"))
    assert acted[:HORIZON].tolist() == noise_of(0).tolist()  # for as long as the first chunk had noise
    assert acted[HORIZON : HORIZON + 4].tolist() == noise_of(1)[-5:-1].tolist()


def test_of_several_candidates_the_one_that_agrees_with_the_last_chunk_is_chosen():
    acted, _ = lived(Smoothing("best of 3", "chosen", candidates=3))
    candidates = [noise_of(1 + 1_000_000 * i) for i in range(3)]
    full = [1e-3 * torch.randn(HORIZON, 2, generator=chunk_generator(7, 1 + 1_000_000 * i)).numpy() for i in range(3)]
    first = 1e-3 * torch.randn(HORIZON, 2, generator=chunk_generator(7, 0)).numpy()
    best = min(range(3), key=lambda i: ((full[i][:5] - first[5:10]) ** 2).mean())  # rows 5 to 9 are left, of 10
    assert acted[EXECUTED : 2 * EXECUTED].tolist() == candidates[best][:EXECUTED].tolist()


def test_blending_moves_from_one_chunk_to_the_next():
    acted, _ = lived(Smoothing("blend", blend_steps=1))
    assert acted[EXECUTED] == pytest.approx((noise_of(0)[EXECUTED] + noise_of(1)[0]) / 2)
    assert acted[EXECUTED + 1] == noise_of(1)[1]


def test_the_jerk_of_an_episode_is_measured_from_its_first_chunk_on():
    # Chunks act in steps 1 to 4, 5 to 8, ..., 17 to 20, and 21 and 22: five fours from one chunk, of 22 - 3 in a row.
    _, result = lived(Smoothing("fresh"), delay=1)
    assert result.counts == [5, 14]
    assert all(square > 0 for square in result.squares)


@pytest.mark.parametrize("options", [{"noise": "old"}, {"candidates": 2}, {"noise": "chosen"}])
def test_a_way_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="odd"):
        Smoothing("odd", **options)
