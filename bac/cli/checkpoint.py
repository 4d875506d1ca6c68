"""A LeRobot checkpoint: policy, processors, and observations in the policy's own format."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bac.cli import lerobot
from bac.errors import BacError


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What `load` read.

    Attributes:
        policy: Untouched, in eval mode, on its device.
        config: LeRobot's configuration of it.
        preprocessor: Observations as environments and data sets give them to what the policy takes.
        postprocessor: What the policy returns to actions.
    """

    policy: nn.Module
    config: Any
    preprocessor: Any
    postprocessor: Any

    def random_observation(self, batch_size: int, *, seed: int = 0) -> dict[str, Any]:
        """Uniform noise of the right shapes, preprocessed: enough to time a policy, not to calibrate it."""
        generator = torch.Generator().manual_seed(seed)
        window = self._window()
        raw: dict[str, Any] = {
            name: torch.rand(batch_size, *window, *feature.shape, generator=generator)
            for name, feature in self.config.input_features.items()
        }
        return self._preprocessed({**raw, "task": ["do it"] * batch_size})

    def observations_of(self, repo_id: str, root: Path | None, *, runs: int, batch_size: int) -> list[dict[str, Any]]:
        """Observations spread evenly over a data set, preprocessed, in batches.

        Raises:
            BacError: The data set holds fewer frames than `runs`.
        """
        datasets, factory = lerobot.part("datasets"), lerobot.part("datasets.factory")
        meta = datasets.LeRobotDatasetMetadata(repo_id, root=root)
        deltas = factory.resolve_delta_timestamps(self.config, meta)
        dataset = datasets.LeRobotDataset(repo_id, root=root, delta_timestamps=deltas)
        if len(dataset) < runs:
            raise BacError(f"{repo_id}: holds {len(dataset)} frames; ask for no more: --runs {len(dataset)}")
        frames = [dataset[index * len(dataset) // runs] for index in range(runs)]
        return [self._preprocessed(_stacked(group)) for group in _groups(frames, batch_size)]

    def _window(self) -> tuple[int, ...]:
        """Observation steps that the policy takes at once, `(To,)`, or nothing if it takes one without that axis."""
        return () if self.config.observation_delta_indices is None else (len(self.config.observation_delta_indices),)

    def _preprocessed(self, raw: dict[str, Any]) -> dict[str, Any]:
        batch = self.preprocessor(raw)
        return {name: value for name, value in batch.items() if not name.startswith(("action", "next."))}


def load(path: Path, *, device: str = "cpu", imports: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint, with no schedule on it.

    Args:
        path: Folder with ``config.json``, weights (or an adapter of PEFT) and processors.
        device: Where to run it.
        imports: Modules to import first, for policy types that are not LeRobot's own.

    Raises:
        BacError: LeRobot or PEFT is missing, or the folder holds no checkpoint.
    """
    if not (path / "config.json").is_file():
        raise BacError(f"{path}: no config.json in it; give the folder that LeRobot calls pretrained_model")
    for name in imports:
        importlib.import_module(name)
    os.environ["BAC"] = "off"  # whatever plug-in is installed, this command wants to see the policy itself
    lerobot.part("policies")
    config = lerobot.part("configs").PreTrainedConfig.from_pretrained(path)
    config.pretrained_path, config.device = path, device
    factory = lerobot.part("policies.factory")
    policy = _load_policy(factory.get_policy_class(config.type), config, path).to(device).eval()
    overrides = {"device_processor": {"device": device}}
    processors = factory.make_pre_post_processors(config, str(path), preprocessor_overrides=overrides)
    return Checkpoint(policy, config, *processors)


def _load_policy(policy_class: Any, config: Any, path: Path) -> nn.Module:
    """The policy itself, also where the folder holds an adapter of PEFT, which then sits in the policy's layers."""
    if not config.use_peft:
        return cast(nn.Module, policy_class.from_pretrained(path, config=config))
    try:
        peft = importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise BacError(f"{path}: holds an adapter; reading it needs peft: pip install 'lerobot[peft]'") from error
    adapter = peft.PeftConfig.from_pretrained(str(path))
    base = policy_class.from_pretrained(adapter.base_model_name_or_path, config=config)
    return cast(nn.Module, peft.PeftModel.from_pretrained(base, str(path), config=adapter).get_base_model())


def _groups(frames: Sequence[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    return (frames[start : start + size] for start in range(0, len(frames), size))


def _stacked(frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: torch.stack([frame[name] for frame in frames]) if isinstance(value, Tensor) else [f[name] for f in frames]
        for name, value in frames[0].items()
    }
