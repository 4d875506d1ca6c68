"""Names of drafts beside a file, and what becomes of the drafts that a killed process left.

A save writes a draft in the folder of its target and renames it at the end. A process that is killed meanwhile leaves
the draft. The draft's name says which process writes it, and the next save of the same target removes it once that
process is gone. A draft from another machine or container, or under a system other than Linux, counts as left when
nothing was written to it for an hour.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

_LEFT_S = 3600.0  # age at which the draft of an unknown process counts as left
_UNKNOWN = "0"  # a machine that is not Linux
_START = 19  # place in /proc/PID/stat behind the command: when the process started


def draft_beside(target: Path, *, suffix: str = ".part") -> Path:
    """A new name in the folder of `target`: a rename is atomic only within one file system."""
    return target.with_name(f".{_writer()}.{secrets.token_hex(4)}.{target.name}{suffix}")


def sweep(target: Path) -> None:
    """Remove the drafts of `target` that nobody writes any more. One that cannot be removed stays."""
    name = re.escape(target.name)
    draft = re.compile(rf"\.(\w+)-(\d+)-(\d+)\.[0-9a-f]{{8}}\.{name}(\.part)?|\.{name}\.[0-9a-f]{{8}}\.part")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if (found := draft.fullmatch(entry.name)) and _is_left(Path(entry.path), *found.groups()[:3]):
                _remove(Path(entry.path))


def _is_left(draft: Path, machine: str | None, process: str | None, start: str | None) -> bool:
    if machine == _machine() and process is not None and machine != _UNKNOWN:
        return _start_of(int(process)) != start
    try:
        return time.time() - draft.stat().st_mtime > _LEFT_S
    except OSError:
        return False  # it was renamed or removed meanwhile


def _remove(draft: Path) -> None:
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
        return
    with suppress(OSError):
        draft.unlink()


def _writer() -> str:
    """This process, told apart from any other of any machine, earlier ones of the same number included."""
    return f"{_machine()}-{os.getpid()}-{_start_of(os.getpid()) or 0}"


def _machine() -> str:
    """The running system and its space of process numbers: containers of one machine have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return blake2b(f"{boot}{os.readlink('/proc/self/ns/pid')}".encode(), digest_size=4).hexdigest()
    except OSError:
        return _UNKNOWN


def _start_of(process: int) -> str | None:
    """When a process started, in ticks; None if there is none, or only what its parent has not asked for yet."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *numbers = status.rpartition(")")[2].split()
    return None if state in "ZX" else numbers[_START - 1]
