"""A plug-in of LeRobot: Push-T as a robot whose pusher is driven to positions, and what its policy needs to see it.

A robot of LeRobot tells scalars, which become one "observation.state". Push-T's policy wants the pusher and the
corners of the block apart. So the robot tells all of them as positions, and a step of the policy's preprocessor,
`SplitState`, takes them apart again.

LeRobot's asynchronous server asks a policy for a chunk without telling it what came before, and DP-T looks back one
control step: with ``history=2`` the robot tells its last two observations, older first. That server also keeps a list
of the types of policies it serves, on which this plug-in puts DP-T's.

It takes one control step per action, and appends to a file what it is told and where it then is: ``[x, y, pusher x,
pusher y]`` per action [pixels], and the words "connect" and "disconnect".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.processor import ObservationProcessorStep, ProcessorStepRegistry
from lerobot.robots import RobotConfig
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE

import envs
from policies.diffusion_transformer import configuration_diffusion_transformer  # noqa: F401  LeRobot learns its name
from tests.lerobot.plugins.diarist import Diarist, DiaristConfig

PUSHER = ("x.pos", "y.pos")
BLOCK = tuple(f"corner_{number}_{axis}.pos" for number in range(8) for axis in "xy")


@RobotConfig.register_subclass("pusht")
@dataclass(kw_only=True)
class PushTConfig(DiaristConfig):
    """The robot tells its last `history` observations."""

    seed: int = 0
    history: int = 1


class PushT(Diarist):
    config_class = PushTConfig
    name = "pusht"

    def __init__(self, config: PushTConfig) -> None:
        super().__init__(config)
        self.world = envs.make("pusht", max_episode_steps=100_000)
        self.seen: deque[dict[str, np.ndarray]] = deque(maxlen=config.history)

    @property
    def observation_features(self) -> dict[str, Any]:
        return dict.fromkeys(self._names, float)

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(PUSHER, float)

    def connect(self, calibrate: bool = True) -> None:
        observation, _ = self.world.reset(seed=self.config.seed)
        self.seen.extend([observation] * self.config.history)
        super().connect(calibrate)

    def get_observation(self) -> dict[str, Any]:
        values = np.concatenate([part for seen in self.seen for part in (seen["agent_pos"], seen["environment_state"])])
        return dict(zip(self._names, values.tolist(), strict=True))

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        target = [float(action[name]) for name in PUSHER]
        observation, *_ = self.world.step(np.array(target))
        self.seen.append(observation)
        self.note([*target, *observation["agent_pos"].tolist()])
        return action

    @property
    def _names(self) -> list[str]:
        before = range(self.config.history - 1, -1, -1)
        return [f"{name}_{ago}_ago.pos" if ago else name for ago in before for name in (*PUSHER, *BLOCK)]


@ProcessorStepRegistry.register(name="pusht_split_state")
@dataclass
class SplitState(ObservationProcessorStep):
    """Takes "observation.state", `[B, history * 18]`, apart into pusher, `[B, 2]`, and block, `[B, 16]`.

    With a history there are `[B, history, ...]` of each.
    """

    history: int = 1

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        state = observation[OBS_STATE].float()
        if self.history > 1:
            state = state.unflatten(-1, (self.history, -1))
        sizes = len(PUSHER), len(BLOCK)
        pusher, block = state.split(sizes, dim=-1)
        return {**observation, OBS_STATE: pusher, OBS_ENV_STATE: block}

    def get_config(self) -> dict[str, Any]:
        return {"history": self.history}

    def transform_features(self, features: Any) -> Any:
        return features


def _let_the_asynchronous_server_serve_it() -> None:
    try:
        from lerobot.async_inference.constants import SUPPORTED_POLICIES
    except ImportError:  # what that server needs is not installed
        return
    if "diffusion_transformer" not in SUPPORTED_POLICIES:
        SUPPORTED_POLICIES.append("diffusion_transformer")


_let_the_asynchronous_server_serve_it()
