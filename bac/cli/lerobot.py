"""Imports LeRobot when a command needs it."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from typing import Any

from bac.adapters.lerobot.names import COMMANDS, VERSIONS, look_up
from bac.errors import BacError


def named(name: str) -> Any:
    """What one of `names.COMMANDS` stands for; LeRobot is imported for it.

    Raises:
        BacError: LeRobot, or a package that it needs, is not installed; or this LeRobot has no such name.
    """
    try:
        return look_up(COMMANDS[name])
    except ModuleNotFoundError as error:
        raise BacError(
            f"{error.name}: not installed; this command works on LeRobot's checkpoints: "
            "from the clone, pip install '.[lerobot]', and the extras of LeRobot that the policy needs"
        ) from error
    except ImportError as error:
        raise BacError(
            f"{error}, which this command calls; bac was tested with {' and '.join(VERSIONS)}: "
            f"pip install 'lerobot=={VERSIONS[-1]}'"
        ) from error


def require_trust(arguments: Sequence[str], trust_network: bool) -> None:
    """Refuse to serve other machines, unless their user says that they are trusted.

    Args:
        arguments: Options of LeRobot's policy server.

    Raises:
        BacError: They name another host than this machine, or a file that may name one.
    """
    parser = argparse.ArgumentParser(add_help=False)
    for option in ("--host", "--config_path"):
        parser.add_argument(option, nargs="?")
    given, _ = parser.parse_known_args(list(arguments))
    is_here = given.config_path is None if given.host is None else _is_loopback(given.host)
    if not is_here and not trust_network:
        raise BacError(
            f"--host {given.host or 'in ' + given.config_path}: LeRobot's protocol unpickles what arrives, so whoever "
            "reaches the port can run code here. If every machine that can is yours, add --trust-network; otherwise "
            "serve this machine alone, --host=localhost, and come through ssh -L 8080:localhost:8080"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
