"""`bac.export` writes the whole run of a small DP-T, and `bac.exported` runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bac
from bac.adapters import find_host
from bac.certificate import Certificate, file_hash
from bac.errors import FileError, MismatchError, RunError
from bac.exporting import formats
from bac.exporting.draws import without_draws
from bac.exporting.recorded import record
from bac.published import AccumulatedChange
from bac.solvers import Multistep
from tests.apart import ROOT, Asked, chunks_apart
from tests.policies.models import ACTIONS, EXECUTED, HORIZON, OBSERVED, STATE, observations, small_policy

pytestmark = pytest.mark.slow
FITTED = bac.Denoising(Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1))), (90, 40))


def chunk(policy: Any, batch: Any, seed: int = 0) -> torch.Tensor:
    return find_host(policy).predict_seeded(batch, seed)


def exported_chunk(policy: Any, batch: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return policy.predict_action_chunk(batch)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A policy under two fitted steps, and its export without a compiled package."""
    policy, folder = bac.wrap(small_policy(), FITTED), tmp_path_factory.mktemp("export") / "fitted"
    bac.export(policy, observations(1), folder, compile=False)
    return policy, folder


def test_an_exported_program_makes_the_policys_chunks_bit_for_bit(fitted):
    policy, folder = fitted
    exported = bac.exported.load(folder)
    for seed in range(3):
        batch = {name: value + seed for name, value in observations(1).items()}
        assert torch.equal(exported_chunk(exported, batch, seed), chunk(policy, batch, seed))


def test_the_card_says_what_goes_in_and_what_comes_out(fitted):
    card = bac.exported.load(fitted[1]).card
    assert [(port.name, port.shape, port.has_window) for port in card.inputs] == [
        ("observation.state", (1, OBSERVED, STATE), True),
        ("observation.environment_state", (1, OBSERVED, 5), True),
    ]
    assert [(noise.name, noise.shape) for noise in card.noise] == [("noise", (1, 1, HORIZON, ACTIONS))]
    assert card.output.shape == (1, EXECUTED, ACTIONS)
    assert (card.errors, card.num_checked) == ({"program.pt2": 0.0}, 3)
    assert bac.load(fitted[1] / "bac.json") == FITTED


def test_the_draws_of_ddpm_are_one_input_with_a_row_for_every_step():
    program = record(find_host(small_policy()), observations(2))
    _, noise = without_draws(program.exact, program.names)
    assert [one.shape for one in noise] == [(5, 2, HORIZON, ACTIONS)]  # the first noise, and all steps but the last


def cached_policy() -> Any:
    policy = small_policy(n_layer=1)
    blocks = [block.name for block in find_host(policy).blocks]
    return bac.wrap(policy, bac.Schedule(5, dict.fromkeys(blocks, (0, 2))), replay=False)


WAYS: dict[str, Callable[[], Any]] = {
    "dense": lambda: small_policy(n_layer=1),
    "cached": cached_policy,
    "fitted": lambda: bac.wrap(small_policy(n_layer=1), FITTED),
}


@pytest.mark.parametrize("way", WAYS)
def test_program_and_onnx_file_make_the_policys_actions_where_lerobot_cannot_be_imported(way, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    policy, batch = WAYS[way](), observations(1)
    card = bac.export(policy, batch, tmp_path / "pt2", compile=False)
    assert [noise.shape for noise in card.noise] == [(1 if way == "fitted" else 5, 1, HORIZON, ACTIONS)]
    bac.export(policy, batch, tmp_path / "onnx", format="onnx")
    asked = Asked(tmp_path / "pt2", "program.pt2", batch, 3), Asked(tmp_path / "onnx", "policy.onnx", batch, 3)
    exact, near = chunks_apart(*asked)
    wanted = chunk(policy, batch, 3)
    assert torch.equal(exact, wanted)
    assert float((near - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_exporting_leaves_policy_and_random_numbers_as_they_were(tmp_path):
    policy, batch = bac.wrap(small_policy(), FITTED, replay=bac.Replay(record="first")), observations(1)
    before, state = chunk(policy, batch), torch.get_rng_state()
    plans = bac.plan.plans(policy)
    record(find_host(policy), batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert bac.plan.plans(policy) == plans
    assert torch.equal(chunk(policy, batch), before)


def test_actions_come_one_by_one_from_a_history_of_observations(fitted):
    policy, folder = fitted
    exported = bac.exported.load(folder)
    steps = [{name: value[:, 0] + step for name, value in observations(1).items()} for step in range(EXECUTED + 1)]
    buffer = {name: value.clone() for name, value in steps[0].items()}  # a robot may reuse its memory
    for episode in range(2):
        policy.reset()
        exported.reset()
        for index, step in enumerate(steps):
            torch.manual_seed(index)
            wanted = policy.select_action(dict(step))
            torch.manual_seed(index)
            for name, value in step.items():
                buffer[name].copy_(value)
            assert torch.equal(exported.select_action(buffer), wanted), (episode, index)


def test_arrays_come_back_as_arrays_and_noise_may_be_given(fitted):
    exported = bac.exported.load(fitted[1])
    batch = {name: value.numpy() for name, value in observations(1).items()}
    noise = exported.draw(np.random.default_rng(0))
    first, second = (exported.predict_action_chunk(batch, noise) for _ in range(2))
    assert isinstance(first, np.ndarray) and (first == second).all()


def test_a_control_loop_drives_a_robot_with_an_export(fitted):
    exported, sent = bac.exported.load(fitted[1]), []

    class Robot:
        def observe(self) -> Any:
            return observations(1)

        def act(self, action: Any) -> None:
            sent.append(np.array(action))

    loop = bac.ControlLoop(exported, Robot(), control_hz=50, safe_action=[0.0] * ACTIONS, robot_timeout_s=None)
    loop.run(num_steps=3)
    assert len(sent) == 3 and sent[0].shape == (ACTIONS,)


def test_an_onnx_file_drives_a_robot_that_has_no_pytorch(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    bac.export(WAYS["fitted"](), observations(1), tmp_path / "onnx", format="onnx")
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np, bac
class Robot:
    sent = 0
    def observe(self):
        sizes = {{"observation.state": {STATE}, "observation.environment_state": 5}}
        return {{name: np.zeros((1, {OBSERVED}, size), np.float32) for name, size in sizes.items()}}
    def act(self, action):
        self.sent += 1
policy = bac.exported.load({str(tmp_path / "onnx")!r})
loop = bac.ControlLoop(policy, Robot(), control_hz=50, safe_action=[0.0] * {ACTIONS})
loop.run(num_steps=3)
print(loop.robot.sent)
"""
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "3\n"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda batch: batch.pop("observation.state"), MismatchError, "observation.state: is missing"),
        (
            lambda batch: batch.update({"observation.state": torch.zeros(2, OBSERVED, STATE)}),
            MismatchError,
            r"the export takes \[1, 2, 3\], got \[2, 2, 3\]",
        ),
    ],
)
def test_another_shape_than_the_exported_one_is_refused(fitted, change, error, words):
    batch = observations(1)
    change(batch)
    with pytest.raises(error, match=words):
        bac.exported.load(fitted[1]).predict_action_chunk(batch)


def test_noise_of_another_shape_is_refused(fitted):
    with pytest.raises(MismatchError, match=r"noise: the export takes .* got \[\(3,\)\]"):
        bac.exported.load(fitted[1]).predict_action_chunk(observations(1), np.zeros(3))


def test_a_policy_that_decides_during_the_run_is_refused(tmp_path):
    policy = bac.wrap(small_policy(), AccumulatedChange(5, threshold=0.1), replay=False)
    with pytest.raises(RunError, match="cannot be exported, because AccumulatedChange makes a run depend on what it"):
        bac.export(policy, observations(1), tmp_path / "out", compile=False)
    assert not list(tmp_path.iterdir())


def test_an_export_that_is_interrupted_leaves_the_old_folder_and_nothing_else(fitted, tmp_path, monkeypatch):
    policy, _ = fitted
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "card.json").write_text("old")

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(formats.FORMATS, "pt2", stop)
    with pytest.raises(KeyboardInterrupt):
        bac.export(policy, observations(1), tmp_path / "out", compile=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "card.json"]


def test_a_folder_that_cannot_be_written_is_told_before_the_run_is_recorded(fitted, tmp_path):
    with pytest.raises(FileError, match="there is no folder .* to write to; make it first"):
        bac.export(fitted[0], observations(1), tmp_path / "missing" / "out", compile=False)


def test_a_missing_compiler_is_one_sentence(fitted, tmp_path, monkeypatch):
    builder = pytest.importorskip("torch._inductor.cpp_builder")

    def none() -> str:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(builder, "get_cpp_compiler", none)
    with pytest.raises(bac.BacError, match=r"AOTInductor needs a C\+\+ compiler, and none was found; install one"):
        bac.export(fitted[0], observations(1), tmp_path / "out")


def test_an_unknown_format_is_told(fitted, tmp_path):
    with pytest.raises(bac.BacError, match="format: must be pt2 or onnx, got 'engine'"):
        bac.export(fitted[0], observations(1), tmp_path / "out", format="engine")


def test_a_file_that_is_not_the_cards_is_refused(fitted, tmp_path):
    (tmp_path / "out").mkdir()
    for path in fitted[1].iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "out" / "program.pt2").open("ab") as file:
        file.write(b"more")
    with pytest.raises(MismatchError, match="is about a file of hash"):
        bac.exported.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("noise", {"shape": [1, 1, HORIZON, ACTIONS + 1]}, r"takes .* where card\.json says .*float32 \[1, 1, "),
        ("inputs", {"dtype": "float64"}, r"takes float32 .* where card\.json says float64"),
        ("inputs", {"has_window": True, "shape": [1]}, "has_window must be false"),
    ],
)
def test_a_card_that_says_other_inputs_than_the_file_takes_is_refused(fitted, tmp_path, field, change, words):
    shutil.copytree(fitted[1], tmp_path / "out")
    document = json.loads((tmp_path / "out" / "card.json").read_text())
    document[field][0] |= change
    (tmp_path / "out" / "card.json").write_text(json.dumps(document))
    with pytest.raises(bac.BacError, match=words):
        bac.exported.load(tmp_path / "out")


def test_a_folder_that_holds_something_else_is_not_replaced(fitted, tmp_path):
    (tmp_path / "thesis.txt").write_text("two years")
    with pytest.raises(FileError, match="holds other things than an export, and would be replaced"):
        bac.export(fitted[0], observations(1), tmp_path, compile=False)
    assert (tmp_path / "thesis.txt").read_text() == "two years"


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(bac.BacError, match="there is no such file. Make one: bac export"):
        bac.exported.load(tmp_path)


def test_a_certificate_beside_the_file_covers_the_export(fitted, tmp_path):
    policy, _ = fitted
    FITTED.save(tmp_path / "bac.json")
    certificate = Certificate(
        *("shown", "toy", "fitted", "DDPM-5", "success", 9, 0.0, -0.1, 0.1, 0.2, 0.95, 0),
        *(file_hash(tmp_path / "bac.json"), "0123456789abcdef", "python -m eval.certify", "a CPU", "2026-11-22"),
    )
    certificate.save(tmp_path / "certificate.json")
    bac.export(policy, observations(1), tmp_path / "out", compile=False, file=tmp_path / "bac.json")
    found = Certificate.beside(tmp_path / "out" / "bac.json")
    assert found.exports == f"program.pt2:{file_hash(tmp_path / 'out' / 'program.pt2')}"
    with (tmp_path / "out" / "program.pt2").open("ab") as file:
        file.write(b"more")
    with pytest.raises(MismatchError, match=r"certificate\.json: is for a program\.pt2 of hash"):
        Certificate.beside(tmp_path / "out" / "bac.json")


def test_a_file_that_the_policy_does_not_follow_is_refused(fitted, tmp_path):
    bac.Denoising(num_steps=3).save(tmp_path / "bac.json")
    with pytest.raises(MismatchError, match="the policy follows fitted multistep, 2 steps instead"):
        bac.export(fitted[0], observations(1), tmp_path / "out", compile=False, file=tmp_path / "bac.json")
