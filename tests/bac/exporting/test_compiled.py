"""The compiled package of a small DP-T, in Python and in a C++ program without Python."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bac
from bac.adapters import find_host
from tests.apart import Asked, chunks_apart
from tests.policies.models import ACTIONS, STATE, observations, small_policy

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]

if not any(map(shutil.which, ("g++", "clang++", "c++"))):
    pytest.skip("AOTInductor and the C++ example need a C++ compiler", allow_module_level=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with statistics of its own for every quantity."""
    from policies.diffusion_transformer.processor_diffusion_transformer import (
        make_diffusion_transformer_pre_post_processors,
    )

    path, policy = tmp_path_factory.mktemp("checkpoint"), small_policy(n_layer=1, num_inference_steps=2)
    sizes = {"observation.state": STATE, "observation.environment_state": 5, "action": ACTIONS}
    stats = {
        name: {"min": -torch.arange(1.0, size + 1), "max": torch.arange(size) + 3.0} for name, size in sizes.items()
    }
    policy.save_pretrained(path)
    for processor in make_diffusion_transformer_pre_post_processors(policy.config, stats):
        processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    """The export of the policy in that checkpoint."""
    from policies import loading

    path = checkpoint / "export"
    bac.export(loading.load(checkpoint).policy, observations(1), path, checkpoint=checkpoint)
    return path


def test_a_compiled_package_makes_the_policys_actions_where_lerobot_cannot_be_imported(checkpoint, folder):
    from policies import loading

    (found,) = chunks_apart(Asked(folder, "compiled.pt2", observations(1), 3))
    wanted = find_host(loading.load(checkpoint).policy).predict_seeded(observations(1), 3)
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_an_export_normalises_as_the_processors_do(checkpoint, folder):
    from policies import loading

    loaded, raw = loading.load(checkpoint), observations(1)
    torch.manual_seed(3)
    wanted = loaded.postprocessor(loaded.policy.predict_action_chunk(loaded.preprocessor(dict(raw))))
    torch.manual_seed(3)
    found = bac.exported.load(folder, file="program.pt2").predict_action_chunk(raw)
    assert torch.equal(found, wanted)


def test_a_cpp_program_prints_pythons_actions(folder, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("the C++ example is built with cmake")
    torch_folder = Path(torch.__file__).parent
    build = ["cmake", "-S", str(ROOT / "examples" / "cpp"), "-B", str(tmp_path), f"-DTORCH={torch_folder}"]
    for command in (build, ["cmake", "--build", str(tmp_path)]):
        subprocess.run(command, capture_output=True, text=True, check=True)
    raw = observations(1)
    numbers = np.concatenate([value.numpy().ravel() for value in raw.values()])
    np.savetxt(tmp_path / "observation.txt", numbers, fmt="%.9g")
    arguments = [folder / "compiled.pt2", tmp_path / "observation.txt", 7, 100, 12]
    lines = run_robot(tmp_path / "robot", arguments)
    torch.manual_seed(7)
    wanted = bac.exported.load(folder).predict_action_chunk(raw)[0]
    found = np.array([line.split() for line in lines[:-1]], dtype=np.float32)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert re.fullmatch(r"missed \d+ of 12", lines[-1])  # how many, the machine decides


def run_robot(program: Path, arguments: list[Any]) -> list[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
