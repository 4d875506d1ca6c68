"""Worlds to evaluate in, and the demonstrations to learn from: gymnasium environments with one contract.

Every environment here

- takes ``task`` and ``max_episode_steps``, so ``envs.make(**config)`` builds any of them;
- observes ``{"agent_pos": [Ds], "environment_state": [De]}``, float32, in the simulator's own units;
- is determined by ``reset(seed=s)`` alone: same seed and actions, same episode, in any process and order;
- puts ``is_success`` (bool) in the info of every reset and step, and ends the episode on success;
- tells ``env.unwrapped.control_hz`` (control steps per second [Hz]), ``env.unwrapped.max_episode_steps``
  and ``env.unwrapped.score()``, the benchmark's own measure of the episode so far, in [0, 1].

Simulators are imported when an environment is made, never by ``import envs``::

    env = envs.make("metaworld", task="assembly-v3")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
"""

from envs.registry import ENVIRONMENTS, make, make_vec

__all__ = ["ENVIRONMENTS", "make", "make_vec"]
