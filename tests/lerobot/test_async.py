"""LeRobot's asynchronous server, started by ``bac serve``, and its client with a robot; the server dies in between.

What LeRobot 0.6.1 does then. Its client goes on: it executes what is left of the chunk it has, logs every call that
fails, and keeps the robot where it is. It tells a server which policy to load once, when it starts; a server that was
started again therefore has none, logs an error for every observation and answers with nothing. So the robot stands
still, nothing old is repeated, and it takes a new client, which loads the policy anew, for it to move.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="LeRobot's asynchronous inference needs it")
pytest.importorskip("num2words", reason="LeRobot's smolvla needs it")

from tests.lerobot import checkpoints, commands
from tests.lerobot.commands import Command, wait_until

pytestmark = pytest.mark.slow

PLUGINS = Path(__file__).parent / "plugins"
FOLLOWS = "bac: SmolVLAPolicy follows"
CHUNK = 5  # actions


@dataclass(frozen=True)
class Story:
    """What the two servers, one after the other, and their clients said; the actions of the robot, `[., 2]`, in parts.

    Attributes:
        before: While the first server lived.
        after_kill: Until the robot stood still.
        after_restart: Once there was a server again, and the same client.
        anew: Those of the second client.
    """

    servers: tuple[str, str]
    clients: tuple[str, str]
    before: list[list[float]]
    after_kill: list[list[float]]
    after_restart: list[list[float]]
    anew: list[list[float]]


class Bench:
    """Starts servers and clients on one port, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = checkpoints.smolvla(folder)
        site = commands.install(folder / "site", "lerobot_robot_simulated", PLUGINS / "robot.py")
        self.paths = [commands.install(site, "lerobot_policy_bac"), commands.ROOT]
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port = unused.getsockname()[1]
        self.commands: list[Command] = []

    def server(self, log: str) -> Command:
        arguments = ["serve", "--host=127.0.0.1", f"--port={self.port}", "--fps=20", "--inference_latency=0.01"]
        command = self._start("bac.cli", arguments + ["--obs_queue_timeout=0.2"], log)
        command.say("PolicyServer started")
        return command

    def client(self, log: str) -> Command:
        arguments = ["--robot.type=simulated", f"--robot.diary={self.folder / log}.diary", "--task=push the block"]
        arguments += [f"--robot.calibration_dir={self.folder}", f"--server_address=127.0.0.1:{self.port}", "--fps=20"]
        arguments += ["--policy_type=smolvla", f"--pretrained_name_or_path={self.checkpoint}"]
        arguments += [f"--actions_per_chunk={CHUNK}", "--policy_device=cpu"]
        return self._start("lerobot.async_inference.robot_client", arguments, log)

    def actions(self, log: str) -> list[list[float]]:
        path = self.folder / f"{log}.diary"
        events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [event for event in events if isinstance(event, list)]

    def move(self, log: str, number: int) -> None:
        """Wait until the robot was given `number` actions."""
        assert wait_until(lambda: len(self.actions(log)) >= number, 240), self.commands[-1].output()[-3000:]

    def rest(self, log: str, quiet_s: float) -> None:
        """Wait until it has been given none for a while."""
        seen, since = -1, time.monotonic()
        while time.monotonic() < since + quiet_s:
            if len(self.actions(log)) != seen:
                seen, since = len(self.actions(log)), time.monotonic()
            time.sleep(0.05)

    def close(self) -> None:
        for command in self.commands:
            command.kill()

    def _start(self, module: str, arguments: list[str], log: str) -> Command:
        self.commands.append(commands.start(module, *arguments, folder=self.folder, log=log, paths=self.paths))
        return self.commands[-1]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def story(bench: Bench) -> Story:
    first, client = bench.server("server 1"), bench.client("client 1")
    bench.move("client 1", 3 * CHUNK)
    first.kill()
    before = len(bench.actions("client 1"))
    bench.rest("client 1", quiet_s=2.0)
    at_rest = len(bench.actions("client 1"))

    second = bench.server("server 2")
    second.say("Error in StreamActions", timeout_s=200)
    bench.rest("client 1", quiet_s=2.0)
    client.interrupt()
    client.process.join(60)
    assert FOLLOWS not in second.output()

    another = bench.client("client 2")
    bench.move("client 2", 2 * CHUNK)
    another.interrupt()
    another.process.join(60)
    given = bench.actions("client 1")
    said = (first.output(), second.output()), (client.output(), another.output())
    return Story(*said, given[:before], given[before:at_rest], given[at_rest:], bench.actions("client 2"))


def test_a_server_started_by_bac_serve_wraps_what_a_client_asks_for(story):
    assert FOLLOWS in story.servers[0] and "16 of 56 updates" in story.servers[0]
    assert len(story.before) >= 3 * CHUNK


def test_when_the_server_dies_the_robot_finishes_its_chunk_at_most_and_the_client_says_why(story):
    assert len(story.after_kill) <= CHUNK
    assert "Error receiving actions" in story.clients[0] or "Error sending observation" in story.clients[0]


def test_no_action_is_ever_given_twice(story):
    given = [tuple(action) for action in story.before + story.after_kill]
    assert len(set(given)) == len(given)


def test_a_server_started_again_moves_nothing_until_a_client_tells_it_its_policy(story):
    assert story.after_restart == []


def test_a_new_client_has_the_policy_loaded_and_wrapped_anew(story):
    assert FOLLOWS in story.servers[1]
    assert len(story.anew) >= 2 * CHUNK


def test_an_interrupted_client_lets_go_of_its_robot(story, bench):
    for log in ("client 1", "client 2"):
        assert json.loads((bench.folder / f"{log}.diary").read_text().splitlines()[-1]) == "disconnect"
