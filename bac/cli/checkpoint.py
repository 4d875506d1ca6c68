"""A LeRobot checkpoint: policy, processors, and observations in the policy's own format."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bac.cli import lerobot
from bac.errors import BacError
from bac.files import brief, read_json

_PLUGINS, _OWN_PLUGIN = "lerobot_policy_", "lerobot_policy_bac"  # names of distributions and of their modules


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
    _take_device(device)
    if not os.path.lexists(path):
        raise BacError(f"--policy-path {path}: there is no such folder; give one with a config.json in it")
    if not os.path.lexists(path / "config.json"):
        raise BacError(
            f"{path}: no config.json in it; give the folder that LeRobot calls pretrained_model: "
            "--policy-path outputs/train/RUN/checkpoints/last/pretrained_model"
        )
    if imports:
        sys.path.insert(0, os.getcwd())  # a user's own policy lies in the working folder, not among packages
    for name in imports:
        _register(name)
    os.environ["BAC"] = "off"  # this command needs the policy unwrapped, even if the plug-in is installed
    # the factory comes first: importing it registers LeRobot's own types
    get_class, make_processors = lerobot.named("get_policy_class"), lerobot.named("make_pre_post_processors")
    config_class = lerobot.named("PreTrainedConfig")
    _check_type(path, config_class)
    with _naming_what_is_broken(path):
        config = config_class.from_pretrained(path)
        config.pretrained_path, config.device = path, device
        policy = _load_policy(get_class(config.type), config, path).to(device).eval()
        overrides = {"device_processor": {"device": device}}
        processors = make_processors(config, str(path), preprocessor_overrides=overrides)
    return Checkpoint(policy, config, *processors)


def _take_device(device: str) -> None:
    """Called before a policy is loaded. ``cuda:1`` becomes the current GPU, for which every clock here waits.

    Raises:
        BacError: The device is unknown, or not there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise BacError(f"--device {device}: cannot be used here ({brief(error)}); type --device cpu") from error
    if torch.device(device).index is not None and torch.device(device).type == "cuda":
        torch.cuda.set_device(device)


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


def _check_type(path: Path, config_class: Any) -> None:
    """Make sure that LeRobot knows the policy's type; plug-ins that are installed for LeRobot may register it.

    Raises:
        BacError: Nothing registers it.
    """
    policy_type = read_json(path / "config.json", "policy.save_pretrained(FOLDER)").get("type")
    if policy_type in list(config_class.get_known_choices()):  # a list: the file may hold what cannot be hashed
        return
    failed = _import_plugins()
    if policy_type not in list(config_class.get_known_choices()):
        raise BacError(
            f"{path}: holds a policy of type {policy_type!r}, which nothing registers{failed}. Name the module or "
            "package that does, from the folder it lies in: --import my_policies, for example; for the checkpoints of "
            "bac's repository, from there: --import policies.diffusion_transformer"
        )


def _import_plugins() -> str:
    """Import what is installed as a LeRobot plug-in for policies; what failed, as a clause."""
    names = {str(found.metadata["Name"]) for found in importlib.metadata.distributions()}
    failed = []
    for name in sorted(names - {_OWN_PLUGIN}):
        if name.startswith(_PLUGINS):
            try:
                importlib.import_module(name)
            except Exception as error:  # of somebody else's module
                failed.append(f"; the plug-in {name} could not be imported ({brief(error)})")
    return "".join(failed)


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
