"""The `bac` command: draw a file, examine or time a checkpoint, and make a schedule, guard or tuning for it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or exit with the name of the missing package."""
    try:
        from bac.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("bac: the command needs the package typer: from the clone, pip install '.[cli]'")
    app()
