"""Provenance of published numbers: command, date, machine and versions."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bac

PACKAGES = ("torch", "lerobot", "diffusers", "gymnasium", "metaworld", "mujoco", "gym-pusht", "numpy")


def provenance() -> dict[str, Any]:
    """Command, date, machine and versions, as plain JSON types."""
    return {
        "command": command_line(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {"bac": bac.__version__, **{name: version(name) for name in PACKAGES}},
    }


def command_line() -> str:
    """The running command, as a user would type it."""
    module = sys.modules["__main__"].__spec__
    program = f"python -m {module.name.removesuffix('.__main__')}" if module else "python"
    return " ".join([program, *(shlex.quote(argument) for argument in sys.argv[1:])])


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
