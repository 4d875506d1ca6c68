"""What a comparison is about: the policy, its world, how many episodes, where results go."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import envs
import policies
from bac.certificate import file_hash
from eval.setup.keys import comparison_key

# Worlds in which the dense policy visits the states that calibration and action error look at. Evaluation takes
# seeds from 0, demonstrations from 100,000: no world is met twice.
CALIBRATION_SEED = 1_000_000
FIDELITY_SEED = 2_000_000
SHIPPED = "fitted_4.json"  # beside the shipped weights: four fitted steps; no command follows it by itself


@dataclass(frozen=True)
class Settings:
    """One comparison.

    Attributes:
        policy: A name of `policies.CHECKPOINTS`, or a checkpoint's folder.
        env: A name of `envs.ENVIRONMENTS`.
        task: Name of the task, also of its folders.
        env_options: Arguments of that environment.
        n: Episodes per cell; seeds are `first_seed` .. `first_seed + n - 1`.
        first_seed: Seed of the first world.
        workers: Processes, each on one thread.
        launcher: Where they are, one of `eval.play.launchers.LAUNCHERS`.
        launcher_address: Of a Ray cluster; see ``configs/launcher/ray.yaml``.
        pool_size: Episodes side by side in a process.
        num_updates: The paper's S.
        num_bubbled: The paper's n.
        num_observations: Observations to calibrate on, and as many others to measure action error on.
        num_draws: Noise draws per observation.
        num_observation_episodes: Dense episodes the observations of each set come from.
        executor: How latency is measured, for every cell alike: ``auto`` (all replayed from plans, as `bac.wrap` does
            by itself) or ``interpret`` (dense eager, caches intercepted). Episodes are the same either way.
        latency_rounds: Samples per cell.
        num_spacing_draws: Noise draws per observation when the rivals' timestep spacing is chosen, at least 2.
        few_steps: Numbers of dense steps of the few-step solvers' curve; empty for none.
        sweep_updates: Values of S of the sweep; empty for none.
        sweep_bubbled: Values of n of the sweep.
        tuned: File beside the policy's weights that says how it was tuned, to be run too: ``bac.json``, which
            LeRobot's commands follow, or another. None for none.
        realtime_n: Episodes per cell with the world not waiting; 0 for none.
        realtime_options: Options of the environment that are other there, such as a time limit that leaves room for
            thinking.
        outputs: Folder of what can be computed again.
        progress: Show progress bars.
    """

    policy: str
    env: str
    task: str
    env_options: Mapping[str, Any] = field(default_factory=dict)
    n: int = 200
    first_seed: int = 0
    workers: int = 2
    launcher: str = "local"
    launcher_address: str | None = None
    pool_size: int = 50
    num_updates: int = 10
    num_bubbled: int = 5
    num_observations: int = 32
    num_draws: int = 2
    num_observation_episodes: int = 8
    executor: str = "auto"
    latency_rounds: int = 30
    num_spacing_draws: int = 8
    few_steps: tuple[int, ...] = ()
    sweep_updates: tuple[int, ...] = ()
    sweep_bubbled: tuple[int, ...] = ()
    tuned: str | None = None
    realtime_n: int = 0
    realtime_options: Mapping[str, Any] = field(default_factory=dict)
    outputs: Path = Path("outputs")
    progress: bool = True

    @property
    def seeds(self) -> range:
        """One per episode."""
        return range(self.first_seed, self.first_seed + self.n)

    @property
    def judged_by_score(self) -> bool:
        """Whether paired differences are of the score: Push-T counts how far, since few demonstrations succeed."""
        return self.env == "pusht"

    @property
    def checkpoint(self) -> Path:
        """Folder of the policy."""
        return Path(policies.CHECKPOINTS.get(self.policy, self.policy))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What every result depends on besides the cell: weights, policy configuration and world.

        Not the code: after a change of a solver or a world remove the folder in `outputs`.
        """
        return {
            "weights": file_hash(self.checkpoint / "model.safetensors"),
            "config": file_hash(self.checkpoint / "config.json"),
            "env": self.env,
            "env_options": dict(self.env_options),
        }

    @cached_property
    def folder(self) -> Path:
        """Where this policy's results in this world are kept; other weights or options have another folder."""
        calibration = [self.num_observations, self.num_draws, self.num_observation_episodes]
        return self.outputs / f"{self.task}-{comparison_key(self.identity, {'calibration': calibration})[:8]}"

    @cached_property
    def realtime(self) -> "Settings":
        """The same comparison in the world that does not wait."""
        return replace(self, env_options={**self.env_options, **self.realtime_options})

    def make_env(self) -> gym.Env:
        """A fresh world."""
        return envs.make(self.env, **self.env_options)

    def load_policy(self) -> Any:
        """A fresh policy with its processors, on one thread."""
        torch.set_num_threads(1)
        return policies.load(self.checkpoint)
