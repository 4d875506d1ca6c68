"""A LeRobot checkpoint: policy, processors, and observations in the policy's own format."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bac.cli import lerobot
from bac.errors import BacError
from bac.files import brief, read_json


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A LeRobot checkpoint, loaded.

    Attributes:
        policy: The untouched policy, in eval mode, on its device.
        config: LeRobot's configuration of the policy.
        preprocessor: Turns observations of environments and data sets into batches for the policy.
        postprocessor: Turns the policy's outputs into actions.
    """

    policy: nn.Module
    config: Any
    preprocessor: Any
    postprocessor: Any

    def random_observation(self, batch_size: int, *, seed: int = 0) -> dict[str, Any]:
        """Uniform noise of the right shapes, preprocessed: enough to time a policy, not to calibrate it."""
        return self.preprocessed(self.raw_observation(batch_size, seed=seed))

    def raw_observation(self, batch_size: int, *, seed: int = 0) -> dict[str, Any]:
        """The same before it is preprocessed, as an environment gives it."""
        generator = torch.Generator().manual_seed(seed)
        window = self._window()
        raw: dict[str, Any] = {
            name: torch.rand(batch_size, *window, *feature.shape, generator=generator)
            for name, feature in self.config.input_features.items()
        }
        return {**raw, "task": ["do it"] * batch_size}

    def observations_of(self, repo_id: str, root: Path | None, *, runs: int, batch_size: int) -> list[dict[str, Any]]:
        """Observations spread evenly over a data set, preprocessed, in batches.

        Raises:
            BacError: The data set cannot be read, or holds fewer frames than `runs`.
        """
        metadata, data = lerobot.named("LeRobotDatasetMetadata"), lerobot.named("LeRobotDataset")
        resolve = lerobot.named("resolve_delta_timestamps")
        try:
            meta = metadata(repo_id, root=root)
            dataset = data(repo_id, root=root, delta_timestamps=resolve(self.config, meta))
        except OSError as error:  # of files, and of the hub
            why = " ".join(str(error).split())
            raise BacError(f"--dataset {repo_id}: {why}; name its folder if it is here: --dataset-root") from error
        if len(dataset) < runs:
            raise BacError(f"{repo_id}: holds {len(dataset)} frames; ask for no more: --runs {len(dataset)}")
        frames = [dataset[index * len(dataset) // runs] for index in range(runs)]
        return [self.preprocessed(_stacked(group)) for group in _groups(frames, batch_size)]

    def _window(self) -> tuple[int, ...]:
        """The observation window of the policy: `(To,)`, or `()` if its observations have no such axis."""
        return () if self.config.observation_delta_indices is None else (len(self.config.observation_delta_indices),)

    def preprocessed(self, raw: dict[str, Any]) -> dict[str, Any]:
        """What the policy gets for observations of an environment or a data set, without actions."""
        batch = self.preprocessor(raw)
        return {name: value for name, value in batch.items() if not name.startswith(("action", "next."))}


def load(path: Path, *, device: str = "cpu", imports: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint without following its schedule.

    Args:
        path: Folder with ``config.json``, weights (or an adapter of PEFT) and processors.
        device: Device to run it on.
        imports: Modules or packages that register policy types which are not LeRobot's own; of a package, every module
            is imported, as LeRobot's own discovery does.

    Raises:
        BacError: LeRobot or PEFT is missing, the folder holds no checkpoint, or nothing registers its policy type.
    """
    if not os.path.lexists(path / "config.json"):
        raise BacError(f"{path}: no config.json in it; give the folder that LeRobot calls pretrained_model")
    if imports:
        sys.path.insert(0, os.getcwd())  # a user's own policy lies in the working folder, not among packages
    for name in imports:
        _register(name)
    os.environ["BAC"] = "off"  # this command needs the policy unwrapped, even if the plug-in is installed
    get_class, make_processors = lerobot.named("get_policy_class"), lerobot.named("make_pre_post_processors")
    config_class = lerobot.named("PreTrainedConfig")
    _check_type(path, config_class.get_known_choices())
    with _naming_what_is_broken(path):
        config = config_class.from_pretrained(path)
        config.pretrained_path, config.device = path, device
        policy = _load_policy(get_class(config.type), config, path).to(device).eval()
        overrides = {"device_processor": {"device": device}}
        processors = make_processors(config, str(path), preprocessor_overrides=overrides)
    return Checkpoint(policy, config, *processors)


@contextmanager
def _naming_what_is_broken(path: Path) -> Iterator[None]:
    """Turn what LeRobot, safetensors and PEFT raise about a damaged file into a sentence."""
    try:
        yield
    except BacError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {brief(error)}"
        raise BacError(f"{path}: LeRobot cannot load it ({why}); save or download it again") from error


def _register(name: str) -> None:
    """Import a module, and every module of a package.

    Raises:
        BacError: There is no such module, or it needs something that is not installed.
    """
    try:
        module = importlib.import_module(name)
        for inner in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
            importlib.import_module(inner.name)
    except ImportError as error:
        not_found = f"{name}.".startswith(f"{error.name}.")  # the module itself, or a package around it
        advice = f"give a module that can be imported from {os.getcwd()}" if not_found else "install what it needs"
        raise BacError(f"--import {name}: {error}; {advice}") from error


def _check_type(path: Path, known: Collection[str]) -> None:
    policy_type = read_json(path / "config.json", "policy.save_pretrained(FOLDER)").get("type")
    if not isinstance(policy_type, str) or policy_type not in known:
        raise BacError(
            f"{path}: holds a policy of type {policy_type!r}, which nothing registers. Name the package that does: "
            "--import policies.diffusion_transformer"
        )


def _load_policy(policy_class: Any, config: Any, path: Path) -> nn.Module:
    """Load the policy. If the folder holds an adapter of PEFT, return the base model with the adapter in its layers."""
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
