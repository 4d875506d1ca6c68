"""The `bac` command: draw a file, examine or time a checkpoint, and make a schedule, guard or tuning for it."""

from __future__ import annotations

import sys

from bac.version import __version__


def main() -> None:
    """Run the command, or exit with the name of the missing package."""
    if sys.argv[1:] == ["--version"]:  # needs none of the commands, nor PyTorch
        sys.stdout.write(f"bac {__version__}\n")
        return
    try:
        from bac.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("bac: the command needs the package typer: from the clone, pip install '.[cli]'")
    app()
