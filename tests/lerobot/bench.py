"""LeRobot's asynchronous server and its clients, each with a robot that keeps a diary, for tests of what goes wrong."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from tests.lerobot import commands
from tests.lerobot.commands import Command


class Bench:
    """Starts servers and clients, and ends what is left of them.

    Args:
        folder: Where all of them run.
        paths: What they can import besides installed packages.

    Attributes:
        port: Of the server.
    """

    def __init__(self, folder: Path, paths: list[Path]) -> None:
        self.folder, self.paths = folder, paths
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port: int = unused.getsockname()[1]
        self.commands: list[Command] = []

    def start_server(self, log: str, *, fps: int) -> Command:
        """Start ``bac serve``, and wait until it listens."""
        arguments = ["serve", "--host=127.0.0.1", f"--port={self.port}", f"--fps={fps}", "--inference_latency=0.01"]
        command = self._start("bac.cli", [*arguments, "--obs_queue_timeout=0.2"], log)
        command.say("PolicyServer started", timeout_s=500)
        return command

    def start_client(
        self, log: str, *, port: int, fps: int, checkpoint: Path, chunk: int, options: list[str]
    ) -> Command:
        """Start LeRobot's client.

        Args:
            port: Where it looks for the server.
            checkpoint: That it tells the server to load.
            chunk: Actions of a chunk.
            options: Which robot, and which type of policy.
        """
        arguments = [
            f"--robot.diary={self.diary(log)}",
            f"--robot.calibration_dir={self.folder}",
            "--policy_device=cpu",
        ]
        arguments += [f"--server_address=127.0.0.1:{port}", f"--fps={fps}", f"--actions_per_chunk={chunk}"]
        arguments += [f"--pretrained_name_or_path={checkpoint}", "--task=push the block", *options]
        return self._start("lerobot.async_inference.robot_client", arguments, log)

    def diary(self, log: str) -> Path:
        """What becomes of the robot of a client."""
        return self.folder / f"{log}.diary"

    def close(self) -> None:
        """Kill whatever still runs."""
        for command in self.commands:
            command.kill()

    def _start(self, module: str, arguments: list[str], log: str) -> Command:
        self.commands.append(commands.start(module, *arguments, folder=self.folder, log=log, paths=self.paths))
        return self.commands[-1]


def events(diary: Path) -> list[object]:
    """What has become of a robot so far."""
    return [json.loads(line) for line in diary.read_text().splitlines()] if diary.exists() else []


def actions(diary: Path) -> list[list[float]]:
    """What it was told to do so far."""
    return [event for event in events(diary) if isinstance(event, list)]


def rest(diary: Path, quiet_s: float) -> None:
    """Wait until it has been told nothing for a while."""
    seen, since = -1, time.monotonic()
    while time.monotonic() < since + quiet_s:
        if len(actions(diary)) != seen:
            seen, since = len(actions(diary)), time.monotonic()
        time.sleep(0.05)
