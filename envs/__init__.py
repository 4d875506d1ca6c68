"""Worlds to evaluate in, and demonstrations to learn from: gymnasium environments with one contract.

Every environment here

- takes ``task`` and ``max_episode_steps``, so ``envs.make(**config)`` builds any of them;
- observes ``{"agent_pos": [Ds], "environment_state": [De]}``, float32, in the simulator's own units;
- is determined by ``reset(seed=s)``: the same seed and actions give the same episode, in any process and order;
- puts ``is_success`` (bool) in the info of every reset and step, and ends the episode on success;
- has ``env.unwrapped.control_hz`` (control steps per second [Hz]), ``env.unwrapped.max_episode_steps``
  and ``env.unwrapped.score()``, the benchmark's own measure of the episode so far, in [0, 1];
- has ``env.unwrapped.picture()``, the scene as a policy may see it; ``make(..., pixels=64)`` observes it, too;
- says in ``env.unwrapped.family`` under which name it was made, and may have ``env.unwrapped.expert_action()``;
- says in ``env.unwrapped.instruction`` what to do, in words.

`make` imports the simulator; ``import envs`` does not::

    env = envs.make("metaworld", task="assembly-v3")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
"""

from envs.registry import ENVIRONMENTS, make, make_vec

__all__ = ["ENVIRONMENTS", "make", "make_vec"]
