"""Small exact stand-ins for a policy and a world, as fixtures."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch


class CountingWorld(gym.Env):
    """A point on a line: action[0] moves it, success at 1.0, `agent_pos` starts at seed / 100."""

    control_hz = 10.0
    max_episode_steps = 23

    def __init__(self) -> None:
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None):
        self.position, self._steps = (seed or 0) / 100, 0
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray):
        self.position += float(action[0])
        self._steps += 1
        success = self.position >= 1.0
        info = {"is_success": success}
        return self._observation(), 0.0, success, self._steps >= self.max_episode_steps, info

    def score(self) -> float:
        return float(np.clip(self.position, 0, 1))

    def _observation(self) -> dict[str, np.ndarray]:
        return {
            "agent_pos": np.array([self.position], np.float32),
            "environment_state": np.array([self._steps, 1.0], np.float32),
        }


class NoisyPolicy:
    """Moves by 0.03 plus one row of noise drawn from its own generator; remembers what it saw."""

    config = SimpleNamespace(n_obs_steps=2, n_action_steps=3, image_features={})

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.observations: list[torch.Tensor] = []

    def eval(self) -> "NoisyPolicy":
        return self

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch, noise=None, generator=None):
        state = batch["observation.state"]
        self.observations.append(state.clone())
        self.batch_sizes.append(len(state))
        noise = torch.stack([torch.randn(3, 2, generator=g) for g in generator])
        return 0.03 + 0.01 * noise


@pytest.fixture
def make_world() -> Callable[[], gym.Env]:
    """Builds a world."""
    return CountingWorld


@pytest.fixture
def make_loaded() -> Callable[[], SimpleNamespace]:
    """Builds a policy with processors that do nothing."""
    return lambda: SimpleNamespace(
        policy=NoisyPolicy(), preprocessor=lambda batch: batch, postprocessor=lambda chunk: chunk
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A random DP-T (2 layers x 16) for Push-T's observations, saved with its processors. Takes seconds to import."""
    from lerobot.configs import FeatureType, PolicyFeature

    from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig
    from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
    from policies.diffusion_transformer.processor_diffusion_transformer import (
        make_diffusion_transformer_pre_post_processors,
    )

    sizes = {"observation.state": ("STATE", 2), "observation.environment_state": ("ENV", 16)}
    inputs = {key: PolicyFeature(FeatureType[kind], (size,)) for key, (kind, size) in sizes.items()}
    config = DiffusionTransformerConfig(
        n_layer=2,
        n_head=2,
        n_emb=16,
        device="cpu",
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
    )
    torch.manual_seed(0)
    policy = DiffusionTransformerPolicy(config)
    for parameter in policy.parameters():  # livelier than a fresh network, which predicts nearly nothing
        torch.nn.init.normal_(parameter, std=0.2)
    bounds = {key: {"min": torch.zeros(size), "max": torch.full((size,), 512.0)} for key, (_, size) in sizes.items()}
    bounds["action"] = {"min": torch.zeros(2), "max": torch.full((2,), 512.0)}
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    policy.save_pretrained(folder)
    for name, processor in zip(
        ("pre", "post"), make_diffusion_transformer_pre_post_processors(config, bounds), strict=True
    ):
        processor.save_pretrained(folder, config_filename=f"policy_{name}processor.json")
    return folder


@pytest.fixture(scope="session")
def pusht_settings(tiny_checkpoint, tmp_path_factory) -> Callable[..., Any]:
    """Makes settings of that policy in Push-T, with a folder of their own; options are `Settings`' own."""
    from eval.setup.settings import Settings

    def make(*, max_episode_steps: int, **options: Any) -> Settings:
        return Settings(
            policy=str(tiny_checkpoint),
            env="pusht",
            task="pusht",
            env_options={"max_episode_steps": max_episode_steps},
            workers=1,
            outputs=tmp_path_factory.mktemp("outputs"),
            progress=False,
            **options,
        )

    return make
