"""The `bac` command on strange files, on full disks, and when it is stopped: one line each."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import bac
from bac.cli import app, checkpoint, lerobot, measure
from tests.bac.saving import KINDS
from tests.lerobot.terminal import run, uniform

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


def missing(path: Path) -> None:
    """Nothing is there."""


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 9)


def nested(path: Path) -> None:
    path.write_text('{"format": ' + "[" * 100_000)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no room


def looping(path: Path) -> None:
    path.symlink_to(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


STRANGE = [missing, binary, nested, huge, looping, pipe, folder]


def only_line(result: Any) -> str:
    """What a command that failed says, among LeRobot's own lines: one line, and no traceback."""
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    (line,) = [line for line in result.output.splitlines() if line.partition(": ")[0].endswith("Error")]
    assert "Traceback" not in result.output
    return line


@pytest.mark.parametrize("name", ["bac.json", "guard.json", "certificate.json"])
@pytest.mark.parametrize("make", STRANGE, ids=lambda make: make.__name__)
def test_show_says_in_one_line_what_is_wrong_and_what_to_type(tmp_path, make, name):
    make(tmp_path / name)
    result = run("show", tmp_path / name)
    line = only_line(result)
    assert result.exit_code == 1 and str(tmp_path / name) in line
    assert "Make one: " in line or "Make it anew: " in line
    wanted = "bac calibrate" if make is folder else {"b": "bac tune", "g": "bac guard", "c": "python -m eval"}[name[0]]
    assert wanted in line


@pytest.mark.parametrize("kind", KINDS[:3] + KINDS[4:], ids=lambda kind: kind.name)
def test_show_draws_whatever_bac_saves(tmp_path, kind):
    kind.save(7, tmp_path / kind.name)
    result = run("show", tmp_path / kind.name)
    assert result.exit_code == 0 and "7" in result.output


@pytest.fixture
def damaged(dit: Path, tmp_path: Path) -> Path:
    shutil.copytree(dit, tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "bac.json").unlink(missing_ok=True)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("make", [missing, binary, nested, looping], ids=lambda make: make.__name__)
def test_doctor_says_in_one_line_which_checkpoint_cannot_be_loaded(damaged, make, name):
    (damaged / name).unlink()
    make(damaged / name)
    assert str(damaged) in only_line(run("doctor", "--policy-path", damaged))


@pytest.mark.parametrize("make", STRANGE[1:], ids=lambda make: make.__name__)
def test_doctor_says_of_a_bac_json_that_cannot_be_read_that_it_does_not_fit(damaged, make):
    make(damaged / "bac.json")
    result = run("doctor", "--policy-path", damaged)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("bac.json ")]
    assert line.startswith(f"bac.json does not fit: {damaged / 'bac.json'}: ")


# Targets are tried before minutes of work, and Ctrl-C is one sentence

COMMANDS = ["calibrate", "guard", "tune"]


@pytest.mark.parametrize("command", [*COMMANDS, "compare"])
def test_a_checkpoint_s_own_file_is_never_replaced(damaged, command, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", lambda *_, **__: pytest.fail("loaded first"))
    uniform((0, 3)).save(damaged / "bac.json")
    config = damaged / "config.json"
    before = config.read_text()
    more = ["--file", str(damaged / "bac.json")] if command == "guard" else []
    result = run(command, "--policy-path", damaged, "--env", "pusht", "--output", config, *more)
    assert "config.json: is no file of bac, and would be replaced; choose another name" in only_line(result)
    assert config.read_text() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_target_that_cannot_be_written_is_said_before_the_policy_is_loaded(dit, command, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    uniform((0, 3)).save(tmp_path / "bac.json")
    monkeypatch.setattr("bac.files.os.fsync", full)
    monkeypatch.setattr(checkpoint, "load", lambda *_, **__: pytest.fail("loaded first"))
    more = ["--file", str(tmp_path / "bac.json")] if command == "guard" else []
    result = run(command, "--policy-path", dit, "--env", "pusht", "--output", tmp_path / "out.json", *more)
    assert "out.json: cannot be written: No space left on device; what was there" in only_line(result)
    assert [path.name for path in tmp_path.iterdir()] == ["bac.json"]


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_leaves_files_as_they_were_and_is_one_sentence(dit, command, tmp_path, monkeypatch):
    def stopped(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    host = bac.adapters.find_host(checkpoint.load(dit).policy)
    updates = dict.fromkeys([block.name for block in host.blocks], (0, 2))
    bac.Denoising(schedule=bac.Schedule(host.num_steps, updates)).save(tmp_path / "bac.json")
    before = (tmp_path / "bac.json").read_bytes()
    for name in ("survey_in", "observations_in"):
        monkeypatch.setattr(measure, name, stopped)
    more = {"calibrate": ["--num-updates", "2"], "guard": [], "tune": ["--target-hz", "25"]}[command]
    more += ["--file", str(tmp_path / "bac.json")] if command == "guard" else ["--output", str(tmp_path / "bac.json")]
    result = run(command, "--policy-path", dit, "--env", "pusht", *more)
    assert result.exit_code == 130 and "Traceback" not in result.output
    sentence = "Stopped: files are as they were, or whole. Type the command again to start from the beginning."
    assert sentence in result.output.splitlines()
    assert (tmp_path / "bac.json").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_says_that_a_command_does_not_resume(command):
    assert "does not resume: it starts from the beginning" in " ".join(run(command, "--help").output.split())


# The server that unpickles


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that reached LeRobot's server."""
    lines: list[list[str]] = []

    calls = {"register_third_party_plugins": lambda: None, "serve": lambda: lines.append(app.sys.argv[1:])}
    monkeypatch.setattr(app.sys, "argv", ["bac"])
    monkeypatch.setattr(lerobot, "named", calls.__getitem__)
    return lines


@pytest.mark.parametrize(
    "options", [[], ["--port=8080"], ["--host=127.0.0.1"], ["--host", "localhost"], ["--host=::1", "--port", "1"]]
)
def test_this_machine_is_served_without_asking(served, options):
    assert run("serve", *options).exit_code == 0
    assert served == [options]


@pytest.mark.parametrize(
    "options", [["--host=0.0.0.0"], ["--host", "192.168.0.2"], ["--host=robot"], ["--ho=::"], ["--config_path=a.json"]]
)
def test_other_machines_are_served_only_if_they_are_trusted(served, options):
    line = only_line(run("serve", *options))
    assert "whoever reaches the port can run code here" in line and "--trust-network" in line
    assert served == []
    assert run("serve", *options, "--trust-network").exit_code == 0
    assert served == [options]


def test_the_help_of_the_server_says_that_it_unpickles():
    words = " ".join(run("serve", "--help").output.split())
    assert "asks for no password and unpickles what arrives, which can run any code" in words
