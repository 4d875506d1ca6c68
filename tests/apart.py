"""Runs exported files in a process of its own that can import neither LeRobot nor what comes with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
BLOCKED = ("lerobot", "diffusers", "transformers", "policies")
CODE = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED}))  # importing one of them now fails
import torch, bac.exported
chunks = []
for folder, file, batch, seed in torch.load(sys.argv[1], weights_only=True):
    policy = bac.exported.load(folder, file=file, is_normalised=True)
    torch.manual_seed(seed)
    chunks.append(policy.predict_action_chunk(batch))
torch.save(chunks, sys.argv[2])
"""


@dataclass(frozen=True)
class Asked:
    """One chunk to make.

    Attributes:
        folder: An export.
        file: The file of it to run.
        batch: A preprocessed observation.
        seed: Seeds the noise.
    """

    folder: Path
    file: str
    batch: Mapping[str, Tensor]
    seed: int = 0


def chunks_apart(*asked: Asked) -> list[Tensor]:
    """The chunks, in order, all made in one process without LeRobot."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given", Path(folder) / "made"
        torch.save([(str(one.folder), one.file, dict(one.batch), one.seed) for one in asked], given)
        subprocess.run([sys.executable, "-c", CODE, given, made], cwd=ROOT, check=True)
        chunks: list[Tensor] = torch.load(made, weights_only=True)
        return chunks
