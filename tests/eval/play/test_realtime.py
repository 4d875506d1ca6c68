"""The world does not wait."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import envs
from eval.play.realtime import Pace, hold_of, play_realtime, think_steps
from eval.play.rollout import EnvPool, play


@pytest.mark.parametrize(
    ("latency_s", "control_hz", "steps"), [(0.0, 80.0, 0), (0.1, 80.0, 8), (0.1001, 80.0, 9), (0.3, 10.0, 3)]
)
def test_a_control_step_that_has_begun_is_held(latency_s, control_hz, steps):
    assert think_steps(latency_s, control_hz) == steps


@pytest.mark.parametrize("env", ["metaworld", "so101"])
def test_an_arm_that_is_displaced_holds_still_and_keeps_its_grip(env):
    hold = hold_of(env)
    assert hold(None, {}).tolist() == [0, 0, 0, 0]
    assert hold(np.array([0.5, -0.5, 1.0, 0.75]), {}).tolist() == [0, 0, 0, 0.75]


def test_pusht_holds_the_last_target():
    hold = hold_of("pusht")
    assert hold(None, {"agent_pos": np.array([3.0, 5.0])}).tolist() == [3.0, 5.0]
    assert hold(np.array([7.0, 11.0]), {"agent_pos": np.array([3.0, 5.0])}).tolist() == [7.0, 11.0]


@pytest.mark.sim
@pytest.mark.parametrize("task", ["adroit-door", "adroit-hammer", "adroit-relocate", "adroit-pen"])
def test_adroit_stays_in_its_starting_pose_and_then_keeps_the_last_target(task):
    hold, env = hold_of("adroit"), envs.make("adroit", task=task)
    first, _ = env.reset(seed=3)
    for _ in range(10):
        seen, *_ = env.step(hold(None, first))
    np.testing.assert_allclose(seen["agent_pos"], first["agent_pos"], atol=0.06)  # it sags [rad, m]
    last = env.action_space.sample()
    np.testing.assert_array_equal(hold(last, first), last)


def test_an_unknown_world_is_refused():
    with pytest.raises(ValueError, match="no hold action is known"):
        hold_of("aloha")


class Diary(gym.Env):
    """Writes down every action; its observation is the number of control steps so far."""

    max_episode_steps = 31

    def __init__(self) -> None:
        self.acted: list[float] = []

    def reset(self, *, seed=None, options=None):
        self.acted.clear()
        return self._observation(), {}

    def step(self, action):
        self.acted.append(float(action[0]))
        return self._observation(), 0.0, False, len(self.acted) >= self.max_episode_steps, {"is_success": False}

    def score(self) -> float:
        return 0.0

    def _observation(self):
        return {
            "agent_pos": np.array([len(self.acted)], np.float32),
            "environment_state": np.zeros(1, np.float32),
        }


class Punctual:
    """Says for every control step its number; executes five of the eight actions that it predicts."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(n_obs_steps=2, n_action_steps=5, horizon=9, image_features={})
        self.observed: list[float] = []

    def eval(self):
        return self

    def reset(self):
        pass

    def predict_action_chunk(self, batch, generator=None):
        now = batch["observation.state"][:, -1]
        self.observed += now[:, 0].tolist()
        return (now + torch.arange(self.config.n_action_steps))[..., None]


def lived(pace, policy=None):
    policy, diary = policy or Punctual(), Diary()
    loaded = SimpleNamespace(policy=policy, preprocessor=lambda batch: batch, postprocessor=lambda chunk: chunk)
    (result,) = play_realtime(loaded, EnvPool(lambda: diary), [0], pace, lambda last, observation: np.array([-1.0]))
    assert result.num_control_steps == len(diary.acted) == 31
    return diary.acted, policy


def test_the_robot_acts_while_it_thinks_and_late_actions_are_skipped():
    acted, policy = lived(Pace((2,)))
    assert acted == [-1, -1, *range(2, 31)]
    assert policy.observed == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30]  # begun 2 steps before 5 have passed


def test_a_chunk_that_takes_longer_than_it_is_for_is_acted_on_beyond():
    acted, policy = lived(Pace((7,)))
    assert acted == [step if step in (7, 14, 21, 28) else -1 for step in range(31)]  # the last of 8 rows, 7 steps late
    assert policy.observed == [0, 7, 14, 21, 28]


def test_standing_still_executes_what_is_meant_to_be_executed():
    acted, policy = lived(Pace((2,), "stand_still"))
    assert acted[:14] == [-1, -1, 0, 1, 2, 3, 4, -1, -1, 7, 8, 9, 10, 11]
    assert policy.observed[:3] == [0, 7, 14]


@given(delays=st.lists(st.integers(0, 7), min_size=1, max_size=9))
def test_no_action_is_played_at_another_time_than_its_own(delays):
    acted, policy = lived(Pace(tuple(sorted(delays))))
    assert all(action in (-1, step) for step, action in enumerate(acted))
    assert policy.config.n_action_steps == 5  # as it was


def test_without_delay_both_modes_are_lock_step(make_loaded, make_world):
    seeds = [3, 5, 7, 11]
    expected = list(play(make_loaded(), EnvPool(make_world), seeds, pool_size=3))
    for mode in ("act", "stand_still"):
        pool, hold = EnvPool(make_world), hold_of("metaworld")
        assert list(play_realtime(make_loaded(), pool, seeds, Pace((0,), mode), hold, pool_size=3)) == expected


def test_standing_still_is_what_comparisons_play(make_loaded, make_world):
    def drift(last, observation):
        return np.array([0.01, 0.0])

    expected = list(play(make_loaded(), EnvPool(make_world), [3, 5], think_steps=2, hold=drift))
    pace = Pace((2,), "stand_still")
    assert list(play_realtime(make_loaded(), EnvPool(make_world), [3, 5], pace, drift)) == expected


def test_drawn_delays_depend_on_the_seed_alone(make_loaded, make_world):
    pace, hold, seeds = Pace((0, 1, 2)), hold_of("pusht"), [3, 5, 7, 11]
    results = [
        {r.seed: r for r in play_realtime(make_loaded(), EnvPool(make_world), seeds, pace, hold, pool_size=size)}
        for size in (1, 3)
    ]
    assert results[0] == results[1]


def test_a_recorded_distribution_is_drawn_from_evenly():
    pace = Pace.of([130.0, 20.0, 20.0, 110.0], control_hz=10.0)
    assert pace == Pace((1, 1, 2, 2))
    drawn = [pace.delay(seed, chunk) for seed in range(40) for chunk in range(25)]
    assert set(drawn) == {1, 2}
    assert 450 < drawn.count(1) < 550


def test_a_constant_latency_is_one_delay():
    assert Pace.of([130.0, 140.0], control_hz=10.0) == Pace((2,))
    assert Pace.of([0.0], control_hz=10.0) == Pace((0,))


def test_thinking_begins_as_early_as_95_in_100_chunks_need():
    assert Pace((1,) * 19 + (7,)).lead == 1
    assert Pace((1,) * 18 + (7, 7)).lead == 7


@pytest.mark.parametrize(("delays", "mode"), [((), "act"), ((-1,), "act"), ((2, 1), "act"), ((1,), "wait")])
def test_a_pace_that_cannot_be_is_refused(delays, mode):
    with pytest.raises(ValueError, match=r"(delays|mode): must be"):
        Pace(delays, mode)
