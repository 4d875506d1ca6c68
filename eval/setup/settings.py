"""Settings of a comparison: the policy, its world, the number of episodes, the folder of results."""

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

# First seeds of the worlds in which the dense policy visits observations for calibration and for action error.
# Evaluation takes seeds from 0 and demonstrations from 100,000, so no world is used twice.
CALIBRATION_SEED = 1_000_000
FIDELITY_SEED = 2_000_000
SHIPPED = "fitted_4.json"  # four fitted steps, beside the shipped weights; used only where a command names it


@dataclass(frozen=True)
class Settings:
    """One comparison.

    Attributes:
        policy: A name of `policies.CHECKPOINTS`, or a checkpoint's folder.
        env: A name of `envs.ENVIRONMENTS`.
        task: Name of the task; its folders have the same name.
        env_options: Arguments of the environment.
        n: Episodes per cell; seeds are `first_seed` .. `first_seed + n - 1`.
        first_seed: Seed of the first world.
        workers: Number of worker processes, each on one thread.
        launcher: Launcher of the workers, one of `eval.play.launchers.LAUNCHERS`.
        launcher_address: Address of a Ray cluster; see ``configs/launcher/ray.yaml``.
        pool_size: Episodes that run side by side in a process.
        num_updates: The paper's S.
        num_bubbled: The paper's n.
        num_observations: Number of observations to calibrate on; action error is measured on as many others.
        num_draws: Noise draws per observation.
        num_observation_episodes: Dense episodes that each of the two sets of observations comes from.
        executor: Executor of all cells when latency is measured: ``auto`` (all replayed from plans, the default of
            `bac.wrap`) or ``interpret`` (dense eager, caches intercepted). Episodes are the same either way.
        latency_rounds: Latency samples per cell.
        num_spacing_draws: Noise draws per observation when the rivals' timestep spacing is chosen, at least 2.
        num_distance_draws: Noise draws per observation for the energy distance to the policy itself, at least 2.
        few_steps: Numbers of dense steps on the curve of few-step solvers; empty for no curve.
        sweep_updates: Values of S in the sweep; empty for no sweep.
        sweep_bubbled: Values of n in the sweep.
        tuned: File beside the policy's weights whose Denoising is compared too: ``bac.json``, which LeRobot's
            commands follow, or another. None adds no cell.
        realtime_n: Real-time episodes per cell; 0 for none.
        realtime_options: Environment options that differ in real time, such as a time limit that leaves room for
            thinking.
        outputs: Folder of intermediate results; all of them can be computed again.
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
    num_distance_draws: int = 8
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
        """The seeds, one per episode."""
        return range(self.first_seed, self.first_seed + self.n)

    @property
    def judged_by_score(self) -> bool:
        """Whether paired differences compare scores. They do for Push-T, where few demonstrations succeed."""
        return self.env == "pusht"

    @property
    def checkpoint(self) -> Path:
        """Folder of the policy."""
        return Path(policies.CHECKPOINTS.get(self.policy, self.policy))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides a result besides the cell: weights, policy configuration and world.

        The code is not part of it. Remove the folder in `outputs` after a change of a solver or a world.
        """
        return {
            "weights": file_hash(self.checkpoint / "model.safetensors"),
            "config": file_hash(self.checkpoint / "config.json"),
            "env": self.env,
            "env_options": dict(self.env_options),
        }

    @cached_property
    def folder(self) -> Path:
        """Folder of this policy's results in this world. Other weights, options or calibrations have another folder."""
        calibration = [self.num_observations, self.num_draws, self.num_observation_episodes]
        return self.outputs / f"{self.task}-{comparison_key(self.identity, {'calibration': calibration})[:8]}"

    @cached_property
    def realtime(self) -> "Settings":
        """The same settings with the environment options of real time."""
        return replace(self, env_options={**self.env_options, **self.realtime_options})

    def make_env(self) -> gym.Env:
        """A fresh world."""
        return envs.make(self.env, **self.env_options)

    def load_policy(self) -> Any:
        """A fresh policy with its processors, on one thread."""
        torch.set_num_threads(1)
        return policies.load(self.checkpoint)
