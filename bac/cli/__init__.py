"""The `bac` command: what a schedule does, what a checkpoint offers, how fast it is, and making a schedule for it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say which package is missing."""
    try:
        from bac.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("bac: the command needs the package typer: pip install 'lerobot_policy_bac[cli]'")
    app()
