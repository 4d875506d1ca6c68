"""The `bac` command as tests type it, and data sets for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

import bac
from bac.adapters import find_host
from bac.cli import checkpoint as checkpoints
from bac.cli.app import app
from tests.policies.models import small_policy


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def uniform(steps: tuple[int, ...]) -> bac.Denoising:
    """DP-T's own solver, and every block updated at `steps`."""
    host = find_host(small_policy(n_layer=1))
    names = [block.name for block in host.blocks]
    return bac.Denoising(schedule=bac.Schedule(host.num_steps, dict.fromkeys(names, steps), host.fingerprint()))


def numbers(root: Path, sizes: dict[str, int], unit: float = 1.0, camera: str | None = None) -> list[str]:
    """Make a data set whose frames hold 0 to 5 `unit` everywhere, and pictures of noise; the options that name it."""
    from lerobot.datasets import LeRobotDataset

    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": (size,), "names": None} for name, size in sizes.items()
    }
    pictures = {} if camera is None else {camera: np.random.default_rng(0)}
    shape = {"dtype": "image", "shape": (28, 28, 3), "names": ["height", "width", "channels"]}
    features |= dict.fromkeys(pictures, shape)
    dataset = LeRobotDataset.create("here/numbers", 10, features, root=root, use_videos=False)
    for number in range(6):
        frame = {name: np.full(size, number * unit, dtype=np.float32) for name, size in sizes.items()}
        frame |= {name: noise.integers(0, 256, (28, 28, 3), dtype=np.uint8) for name, noise in pictures.items()}
        dataset.add_frame({**frame, "task": "push the block"})
    dataset.save_episode()
    dataset.finalize()
    return ["--dataset", "here/numbers", "--dataset-root", str(root)]


def check_guard(result: Any, output: Path, policy_path: Path, runs: int) -> bac.Guard:
    """It says, draws and writes a guard that the policy with its schedule takes."""
    assert result.exit_code == 0, result.output
    guard = bac.Guard.load(output)
    assert str(guard) in result.output and f"written to {output}" in result.output
    assert guard.num_runs == runs
    bac.wrap(checkpoints.load(policy_path).policy, bac.load(policy_path / "bac.json"), guard=guard)
    return guard
