"""`EnvContract`: what every environment of `envs` must satisfy. A test class inherits it and names its environment."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

import envs

Episode = list[tuple[dict[str, np.ndarray], float, bool, bool, bool]]


class EnvContract:
    """Inherit, set `name` and `kwargs`, and mark the class with `pytest.mark.sim`."""

    name: ClassVar[str]
    kwargs: ClassVar[dict[str, Any]] = {}

    def make(self, **kwargs: Any) -> gym.Env:
        return envs.make(self.name, **self.kwargs, **kwargs)

    @pytest.fixture
    def env(self) -> Iterator[gym.Env]:
        env = self.make()
        yield env
        env.close()

    @pytest.fixture
    def actions(self, env: gym.Env) -> list[np.ndarray]:
        """Eleven fixed actions."""
        env.action_space.seed(13)
        return [env.action_space.sample() for _ in range(11)]

    def test_observations_are_float32_and_in_the_space(self, env, actions):
        observation, _ = env.reset(seed=0)
        for seen in (observation, env.step(actions[0])[0]):
            assert env.observation_space.contains(seen)
            assert {name: value.dtype for name, value in seen.items()} == {
                "agent_pos": np.float32,
                "environment_state": np.float32,
            }

    def test_success_is_told_at_every_step_and_is_false_at_the_start(self, env, actions):
        _, at_reset = env.reset(seed=0)
        *_, at_step = env.step(actions[0])
        assert at_reset["is_success"] is False
        assert type(at_step["is_success"]) is bool

    def test_one_seed_is_one_episode(self, env, actions):
        first = play(env, 5, actions)
        play(env, 7, actions[:3])
        np.random.seed(11)  # the global generator must not matter
        assert_equal(play(env, 5, actions), first)
        with_fresh = self.make()
        assert_equal(play(with_fresh, 5, actions), first)
        with_fresh.close()

    def test_seeds_differ_in_their_first_observation(self, env):
        starts = np.stack([np.concatenate([*env.reset(seed=seed)[0].values()]) for seed in range(7)])
        assert len(np.unique(starts, axis=0)) == 7

    def test_rows_of_a_vector_are_the_single_environments(self, env, actions):
        vector = envs.make_vec(self.name, 3, **self.kwargs)
        seeds = [2, 3, 5]
        rows: list[Episode] = [[] for _ in seeds]
        observations, infos = vector.reset(seed=seeds)
        for action in [None, *actions]:
            rewards, over, cut = np.zeros(3), np.zeros(3, bool), np.zeros(3, bool)
            if action is not None:
                observations, rewards, over, cut, infos = vector.step(np.stack([action] * 3))
            for i, row in enumerate(rows):
                seen = {name: value[i].copy() for name, value in observations.items()}
                row.append((seen, rewards[i], over[i], cut[i], infos["is_success"][i]))
        vector.close()
        for seed, row in zip(seeds, rows, strict=True):
            assert_equal(row, play(env, seed, actions))

    def test_an_episode_is_cut_after_its_longest_length(self, actions):
        env = self.make(max_episode_steps=3)
        assert env.unwrapped.max_episode_steps == 3
        assert [cut for *_, cut, _ in play(env, 0, actions[:3])] == [False, False, False, True]
        env.close()

    def test_score_stays_in_range_never_falls_and_starts_anew(self, env, actions):
        env.reset(seed=0)
        scores = [env.unwrapped.score()]
        for action in actions:
            env.step(action)
            scores.append(env.unwrapped.score())
        assert scores[0] == 0.0
        assert scores == sorted(scores)
        assert scores[-1] <= 1.0
        env.reset(seed=0)
        assert env.unwrapped.score() == 0.0

    def test_the_world_says_which_family_it_is_of(self, env):
        assert env.unwrapped.family == self.name

    def test_the_world_says_in_words_what_to_do(self, env):
        assert len(env.unwrapped.instruction.split()) >= 3

    def test_control_hz_is_what_rendered_films_are_played_at(self, env):
        assert env.unwrapped.control_hz == env.metadata["render_fps"]

    @pytest.mark.parametrize("bad, message", [("shape", "must have shape"), ("nan", "must be finite")])
    def test_bad_actions_are_refused(self, env, bad, message):
        env.reset(seed=0)
        size = env.action_space.shape[0]
        action = np.zeros(size + 1) if bad == "shape" else np.full(size, np.nan)
        with pytest.raises(ValueError, match=message):
            env.step(action)

    def test_an_unknown_task_is_refused_with_what_exists(self):
        with pytest.raises(ValueError, match=r"'no-such-task': no such task\. Known: .*" + self.kwargs["task"]):
            envs.make(self.name, task="no-such-task")


def play(env: gym.Env, seed: int, actions: Sequence[np.ndarray]) -> Episode:
    """Reset and execute the actions: observation, reward, terminated, truncated and success after each."""
    observation, info = env.reset(seed=seed)
    episode = [(observation, 0.0, False, False, info["is_success"])]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        episode.append((observation, reward, terminated, truncated, info["is_success"]))
    return episode


def assert_equal(one: Episode, other: Episode) -> None:
    """Two episodes agree bit for bit."""
    assert [step[1:] for step in one] == [step[1:] for step in other]
    for (a, *_), (b, *_) in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
