"""LeRobot's own policies as files: U-Net, SmolVLA and pi0, vision and language inside; and the `bac export` command."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.cli import checkpoint as checkpoints
from bac.exporting import formats
from tests.apart import Asked, chunks_apart
from tests.lerobot import models
from tests.lerobot.terminal import run, uniform
from tests.lerobot.test_diffusion import observed

pytestmark = pytest.mark.slow

POLICIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "diffusion": (lambda: models.diffusion(num_inference_steps=2), lambda: observed(1)),
    "smolvla": (lambda: models.smolvla(num_steps=1), lambda: models.observation(1)),
    "pi0": (lambda: models.pi(name="pi0", num_inference_steps=2), lambda: models.observation(1)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_program_and_onnx_file_make_the_policys_actions_where_lerobot_cannot_be_imported(name, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    policy, batch = (make() for make in POLICIES[name])
    program, onnx = tmp_path / "pt2", tmp_path / "onnx"
    card = bac.export(policy, batch, program, compile=False)
    assert (card.errors, [port.name for port in card.inputs]) == ({"program.pt2": 0.0}, list(batch))
    bac.export(policy, batch, onnx, format="onnx")
    exact, near = chunks_apart(Asked(program, "program.pt2", batch, 5), Asked(onnx, "policy.onnx", batch, 5))
    wanted = find_host(policy).predict_seeded(batch, 5)
    assert torch.equal(exact, wanted)
    assert float((near - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_bac_export_writes_what_its_bac_json_says(folder, tmp_path):
    uniform((0, 2)).save(tmp_path / "bac.json")
    options = ["--policy-path", folder, "--file", tmp_path / "bac.json", "--out", tmp_path / "out", "--no-compile"]
    result = run("export", *options)
    assert result.exit_code == 0, result.output
    assert re.search(r"^writing program\.pt2 \([\d,]+ operators, about 1 min\), and checking it$", result.stderr, re.M)
    assert result.output.endswith(
        f"bit-equal to the policy on 3 chunks, {_made(result)}\nwritten to {tmp_path / 'out'}\n"
    )
    shown = run("show", tmp_path / "out" / "card.json")
    assert (shown.exit_code, shown.output) == (0, f"{bac.exported.load(tmp_path / 'out').card}\n")
    loaded = checkpoints.load(folder)
    batch = loaded.random_observation(1, seed=9)
    wanted = find_host(bac.wrap(loaded.policy, uniform((0, 2)))).predict_seeded(batch, 1)
    torch.manual_seed(1)
    exported = bac.exported.load(tmp_path / "out", is_normalised=True)
    assert torch.equal(exported.predict_action_chunk(batch), wanted)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"bac.json", "card.json", "policy_preprocessor.json"}


def test_bac_export_says_in_one_line_what_is_wrong(folder, tmp_path, monkeypatch):
    result = run("export", "--policy-path", folder, "--out", tmp_path / "no" / "where", "--no-compile")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "there is no folder" in result.stderr
    monkeypatch.setattr(formats, "_ONNX_PACKAGES", ("no_such_package",))
    result = run("export", "--policy-path", folder, "--out", tmp_path / "out", "--format", "onnx")
    assert "needs the package no_such_package: pip install '.[export]' in the clone" in result.stderr


def _made(result: Any) -> str:
    """The time that it took, as printed."""
    return str(result.output.rpartition("chunks, ")[2].partition("\n")[0])
