"""The worlds under LeRobot's commands: ``lerobot-eval --env.type=bac_adroit --env.task=adroit-door``.

LeRobot's own ``metaworld`` and ``so101`` lack what the policies here see: the simulator's state, and a camera on the
wrist. Importing this module registers one type of environment for each row of `envs.ENVIRONMENTS`.
"""

from collections.abc import Callable
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
        names = env.observation_space.spaces
        self._cameras = {FRONT: "pixels", WRIST: "pixels_wrist"}
        self._cameras = {camera: name for camera, name in self._cameras.items() if name in names}
        self.observation_space = gym.spaces.Dict(self._named(names))
        self.metadata = {**env.metadata, "render_fps": round(env.unwrapped.control_hz)}

    @property
    def task_description(self) -> str:
        """The task in words, which LeRobot gives to the policy."""
        return str(self.unwrapped.instruction)

    def observation(self, observation: dict[str, np.ndarray]) -> dict[str, Any]:
        """The observation under LeRobot's names."""
        return self._named(observation)

    def _named(self, found: Any) -> dict[str, Any]:
        if not self._cameras:
            return dict(found)
        pictures = {camera: found[name] for camera, name in self._cameras.items()}
        pixels = gym.spaces.Dict(pictures) if isinstance(found["agent_pos"], gym.Space) else pictures
        return {"agent_pos": found["agent_pos"], "pixels": pixels}


@dataclass
class World(EnvConfig):
    """One world of `envs`, as a LeRobot environment.

    Args:
        task: A task of the world.
        pixels: Height and width of the pictures that a policy sees instead of the simulator's state [pixels].
        wrist: It sees the picture of the camera on the wrist, too.
        max_episode_steps: Control steps until truncation; None for the world's own.

    Raises:
        ValueError: The world has no such task, or no such camera.
    """

    name: ClassVar[str]

    task: str | None = None
    pixels: int | None = None
    wrist: bool = False
    max_episode_steps: int | None = None
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=lambda: dict(POLICY_KEYS))

    def __post_init__(self) -> None:
        world = self._make()
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
        makers: list[Callable[[], gym.Env]] = [self._make] * n_envs
        if use_async_envs and n_envs > 1:
            vector = AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP, context="forkserver")
        else:
            vector = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        return {self.type: {0: vector}}

    def get_env_processors(self) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
        """The first camera is called ``observation.image`` by the policies here; LeRobot's names say which it is."""
        rename = RenameObservationsProcessorStep({f"{OBS_IMAGES}.{FRONT}": OBS_IMAGE})
        return PolicyProcessorPipeline(steps=[rename]), PolicyProcessorPipeline(steps=[])

    @property
    def _make(self) -> Callable[[], AsLeRobotSees]:
        return partial(_make, self.name, self.gym_kwargs)


def _make(name: str, kwargs: dict[str, Any]) -> AsLeRobotSees:
    """Build a world, in whichever process is to have it."""
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
