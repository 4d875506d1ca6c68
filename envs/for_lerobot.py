"""The worlds under LeRobot's commands: ``lerobot-eval --env.type=bac_adroit --env.task=adroit-door``.

LeRobot's own ``metaworld`` does not observe the state of the simulator, and ``so101`` of lerobot-env-so101 neither
the goal nor what a camera on the wrist sees. The policies here do. Importing this module registers one type of
environment for each row of `envs.ENVIRONMENTS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.processor import PolicyProcessorPipeline, RenameObservationsProcessorStep
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE

import envs

FRONT, WRIST = "front", "wrist"
CAMERAS = {FRONT: "pixels", WRIST: "pixels_wrist"}
KINDS = {"agent_pos": FeatureType.STATE, "environment_state": FeatureType.ENV}
POLICY_KEYS = {
    ACTION: ACTION,
    "agent_pos": OBS_STATE,
    "environment_state": OBS_ENV_STATE,
    f"pixels/{FRONT}": OBS_IMAGE,
    f"pixels/{WRIST}": f"{OBS_IMAGES}.{WRIST}",
}


class AsLeRobotSees(gym.ObservationWrapper[dict[str, Any], np.ndarray, dict[str, np.ndarray]]):
    """A world with LeRobot's names. Where there are pictures, they take the place of the simulator's state.

    Args:
        env: What `envs.make` returns.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        spaces = env.observation_space.spaces
        self._cameras = {camera: name for camera, name in CAMERAS.items() if name in spaces}
        seen = self._named(spaces)
        if self._cameras:
            seen["pixels"] = gym.spaces.Dict(seen["pixels"])
        self.observation_space = gym.spaces.Dict(seen)
        self.metadata = {**env.metadata, "render_fps": round(env.unwrapped.control_hz)}

    @property
    def task_description(self) -> str:
        """The task in words, which LeRobot gives to the policy."""
        return str(self.unwrapped.instruction)

    def observation(self, observation: dict[str, np.ndarray]) -> dict[str, Any]:
        """The observation under LeRobot's names."""
        return self._named(observation)

    def _named(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays or spaces of the world, under LeRobot's names."""
        if not self._cameras:
            return dict(found)
        pixels = {camera: found[name] for camera, name in self._cameras.items()}
        return {"agent_pos": found["agent_pos"], "pixels": pixels}


@dataclass
class World(EnvConfig):
    """One world of `envs`, as a LeRobot environment; its sub-classes say which one.

    The world itself decides ``fps`` and ``features``, whatever they are set to.

    Args:
        task: A task of the world.
        pixels: Height and width of the pictures that a policy sees instead of the simulator's state [pixels].
        wrist: It sees the picture of the camera on the wrist, too.
        max_episode_steps: Control steps until truncation; None for the world's own.

    `create_envs` raises a ValueError if the world has no such task, or no such camera.
    """

    name: ClassVar[str]

    task: str | None = None
    pixels: int | None = None
    wrist: bool = False
    max_episode_steps: int | None = None
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=lambda: dict(POLICY_KEYS))

    def __post_init__(self) -> None:
        try:
            world = self._maker()
        except ValueError:  # told by `create_envs`: the parser of commands would put its own error on top
            return
        self.fps = round(world.unwrapped.control_hz)
        self.features = {ACTION: PolicyFeature(FeatureType.ACTION, world.action_space.shape)}
        for name, space in world.observation_space.spaces.items():
            if name == "pixels":
                for camera, box in space.spaces.items():
                    self.features[f"pixels/{camera}"] = PolicyFeature(FeatureType.VISUAL, box.shape)
            else:
                self.features[name] = PolicyFeature(KINDS[name], space.shape)
        world.close()

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """What `envs.make` takes."""
        given = {"task": self.task, "pixels": self.pixels, "max_episode_steps": self.max_episode_steps}
        return {**{key: value for key, value in given.items() if value is not None}, "wrist": self.wrist}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """`n_envs` copies that step together, each in a process of its own if they are to be asynchronous."""
        makers: list[Callable[[], gym.Env]] = [self._maker] * n_envs
        if use_async_envs and n_envs > 1:
            vector = AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP, context="forkserver")
        else:
            vector = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        return {self.type: {0: vector}}

    def get_env_processors(self) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
        """Rename ``observation.images.front`` to ``observation.image``, its name in the policies here."""
        rename = RenameObservationsProcessorStep({f"{OBS_IMAGES}.{FRONT}": OBS_IMAGE})
        return PolicyProcessorPipeline(steps=[rename]), PolicyProcessorPipeline(steps=[])

    @property
    def _maker(self) -> Callable[[], AsLeRobotSees]:
        """What builds the world, in whichever process is to have it."""
        return partial(_make, self.name, self.gym_kwargs)


def _make(name: str, kwargs: dict[str, Any]) -> AsLeRobotSees:
    return AsLeRobotSees(envs.make(name, **kwargs))


@EnvConfig.register_subclass("bac_adroit")
@dataclass
class Adroit(World):
    """The hand of `envs.adroit`."""

    name: ClassVar[str] = "adroit"
    task: str | None = "adroit-door"


@EnvConfig.register_subclass("bac_metaworld")
@dataclass
class MetaWorld(World):
    """The fifty tasks of `envs.metaworld`, with the state of the simulator."""

    name: ClassVar[str] = "metaworld"
    task: str | None = "assembly-v3"


@EnvConfig.register_subclass("bac_pusht")
@dataclass
class PushT(World):
    """The table of `envs.pusht`."""

    name: ClassVar[str] = "pusht"
    task: str | None = "pusht"


@EnvConfig.register_subclass("bac_so101")
@dataclass
class SO101(World):
    """The arm of `envs.so101`."""

    name: ClassVar[str] = "so101"
    task: str | None = "so101-pick-place"
