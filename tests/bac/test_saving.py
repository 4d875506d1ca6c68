"""A reader sees the old file or the new one: on a full disk, after Ctrl-C, after a kill, and while it is written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bac
from bac import drafts, files
from bac.drafts import draft_beside
from bac.errors import FileError
from tests.bac.saving import KINDS, NEW, OLD

pytest.importorskip("zarr")
ROOT = Path(__file__).parents[2]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def fails_at(call: int, error: BaseException, real: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but its call of this number raises."""
    calls = iter(range(1000))

    def failing(*inputs: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise error
        return real(*inputs, **options)

    return failing


FULL = OSError(errno.ENOSPC, "No space left on device")

OF_FILES = ("os.fsync", "os.replace")
OF_FOLDERS = ("os.fsync", "zarr.Group.create_array", "bac.files._exchange")


@each_kind
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_save_that_fails_anywhere_leaves_the_old_file_and_nothing_else(kind, error, tmp_path):
    path, failures = tmp_path / kind.name, 0
    kind.save(OLD, path)
    for place in OF_FOLDERS if kind.name.endswith(".zarr") else OF_FILES:
        for call in (0, 3):
            target = pytest.MonkeyPatch()
            module, _, name = place.rpartition(".")
            owner = _at(module)
            target.setattr(owner, name, fails_at(call, error, getattr(owner, name)))
            try:
                kind.save(NEW, path)
            except (FileError, KeyboardInterrupt) as raised:
                failures += 1
                assert type(raised) is (FileError if error is FULL else KeyboardInterrupt)
                assert kind.load(path) == OLD
            finally:
                target.undo()
            assert [child.name for child in tmp_path.iterdir()] == [kind.name]
            kind.save(OLD, path)
    assert failures >= 2


def _at(path: str) -> Any:
    import importlib

    if path == "zarr.Group":
        return importlib.import_module("zarr").Group
    return importlib.import_module(path)


@each_kind
def test_a_disk_that_takes_no_more_is_named_in_one_sentence(kind, tmp_path):
    """The system itself refuses: no file may grow beyond a hundred bytes."""
    path = tmp_path / kind.name
    kind.save(OLD, path)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(FileError) as caught:
            kind.save(NEW, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == (
        f"{path}: cannot be written: File too large; what was there before is unchanged. Choose another place, or make "
        "room"
    )
    assert kind.load(path) == OLD and [child.name for child in tmp_path.iterdir()] == [kind.name]


@pytest.mark.slow
def test_a_reader_sees_the_old_or_the_new_while_it_is_written_and_after_a_kill(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tests.bac.saving", str(tmp_path), "8", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = {name: (int(old), int(new)) for name, old, new in map(str.split, done.stdout.splitlines())}
    assert list(rows) == [kind.name for kind in KINDS]
    assert all(old and new for old, new in rows.values()), rows  # both were seen, and nothing else


KILLED = """
import os, signal, sys
from pathlib import Path
from bac import files
from tests.bac.saving import KINDS, NEW

os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
(kind,) = [kind for kind in KINDS if kind.name == sys.argv[1]]
kind.save(NEW, Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids=lambda kind: kind.name)
def test_the_next_save_removes_the_draft_of_a_killed_process(kind, tmp_path):
    path = tmp_path / kind.name
    kind.save(OLD, path)
    command = [sys.executable, "-W", "ignore", "-c", KILLED, kind.name, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(tmp_path.iterdir())) == 2
    assert kind.load(path) == OLD
    kind.save(NEW, path)
    assert [child.name for child in tmp_path.iterdir()] == [kind.name]


def test_a_process_that_ended_is_gone_even_before_its_parent_asks(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{ended.pid}").exists()
        (tmp_path / f".{drafts._machine()}-{ended.pid}-1.0123abcd.bac.json.part").touch()
        assert drafts._start_of(ended.pid) is None
        bac.Denoising(num_steps=OLD).save(tmp_path / "bac.json")
    assert [child.name for child in tmp_path.iterdir()] == ["bac.json"]


def test_a_save_leaves_the_drafts_of_live_writers_and_of_other_files(tmp_path, monkeypatch):
    path = tmp_path / "bac.json"
    kept = [draft_beside(path), draft_beside(path, suffix=""), tmp_path / ".new.bac.json.0123abcd.part"]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("bac.drafts._machine", lambda: "0123abcd")
        young, old = draft_beside(path), draft_beside(path)
    left = [old, tmp_path / ".bac.json.0123abcd.part"]
    for draft in (*kept, young, *left):
        draft.touch()
    for draft in (*kept, *left):
        os.utime(draft, (0, 0))
    bac.Denoising(num_steps=OLD).save(path)
    assert set(tmp_path.iterdir()) == {path, young, *kept}


@pytest.mark.parametrize("folder", [False, True])
def test_a_folder_is_swapped_where_the_system_cannot_exchange_names(folder, tmp_path, monkeypatch):
    (kind,) = [kind for kind in KINDS if kind.name.endswith(".zarr")]
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / kind.name
    for number in (OLD, NEW, OLD) if folder else (OLD,):
        kind.save(number, path)
        assert kind.load(path) == number
    assert [child.name for child in tmp_path.iterdir()] == [kind.name]


# Probed before minutes of work


def test_a_probe_leaves_nothing_and_changes_nothing(tmp_path):
    bac.Denoising(num_steps=OLD).save(tmp_path / "bac.json")
    for name in ("bac.json", "new.json"):
        files.probe(tmp_path / name)
    assert [child.name for child in tmp_path.iterdir()] == ["bac.json"]
    assert bac.load(tmp_path / "bac.json").num_steps == OLD


def test_a_probe_refuses_what_could_not_be_written_and_says_why(tmp_path, monkeypatch):
    with pytest.raises(FileError, match="there is no folder .*absent to write to; make it first"):
        files.probe(tmp_path / "absent" / "bac.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="folder: cannot be written: it is a folder;"):
        files.probe(tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file: cannot be written: it is a file;"):
        files.probe(tmp_path / "file", folder=True)
    for error, name in ((errno.EROFS, "Read-only file system"), (errno.ENOSPC, "No space left on device")):
        with monkeypatch.context() as patched, pytest.raises(FileError, match=f"bac.json: cannot be written: {name};"):
            patched.setattr("bac.files.os.fsync", fails_at(0, OSError(error, name), lambda _: None))
            files.probe(tmp_path / "bac.json")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["file", "folder"]


def test_a_draft_takes_the_place_of_the_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "front.png"
    path.write_text(OLD_PICTURE)
    with pytest.raises(KeyboardInterrupt), files.drafted(path) as draft:
        draft.write_text("half a picture")
        raise KeyboardInterrupt
    assert path.read_text() == OLD_PICTURE
    with files.drafted(path) as draft:
        assert draft.suffix == ".png"  # pictures are written in the format of their suffix
        draft.write_text("a new picture")
    assert path.read_text() == "a new picture"
    assert list(tmp_path.iterdir()) == [path]


OLD_PICTURE = "the old picture"
