"""LeRobot's asynchronous server, started by ``bac serve``, and its client with a robot; the server dies in between.

What LeRobot 0.6.1 does then. Its client goes on: it executes what is left of the chunk it has, logs every call that
fails, and keeps the robot where it is. It tells a server which policy to load once, when it starts; a server that was
started again therefore has none, logs an error for every observation and answers with nothing. So the robot stands
still, nothing old is repeated, and it takes a new client, which loads the policy anew, for it to move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="LeRobot's asynchronous inference needs it")
pytest.importorskip("num2words", reason="LeRobot's smolvla needs it")

from tests.lerobot import checkpoints, commands
from tests.lerobot.bench import Bench, actions, events, rest
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


class OneRobot(Bench):
    """Clients whose robot has three joints and a camera."""

    def __init__(self, folder: Path) -> None:
        site = commands.install(folder / "site", "lerobot_robot_simulated", PLUGINS / "robot.py")
        super().__init__(folder, [commands.install(site, "lerobot_policy_bac"), commands.ROOT])
        self.checkpoint = checkpoints.smolvla(folder)

    def server(self, log: str) -> Command:
        return self.start_server(log, fps=20)

    def client(self, log: str) -> Command:
        options = ["--robot.type=simulated", "--policy_type=smolvla"]
        return self.start_client(log, port=self.port, fps=20, checkpoint=self.checkpoint, chunk=CHUNK, options=options)

    def actions(self, log: str) -> list[list[float]]:
        return actions(self.diary(log))

    def move(self, log: str, number: int) -> None:
        """Wait until the robot was given `number` actions."""
        assert wait_until(lambda: len(self.actions(log)) >= number, 240), self.commands[-1].output()[-3000:]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneRobot]:
    made = OneRobot(tmp_path_factory.mktemp("bench"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def story(bench: OneRobot) -> Story:
    first, client = bench.server("server 1"), bench.client("client 1")
    bench.move("client 1", 3 * CHUNK)
    first.kill()
    before = len(bench.actions("client 1"))
    rest(bench.diary("client 1"), quiet_s=2.0)
    at_rest = len(bench.actions("client 1"))

    second = bench.server("server 2")
    second.say("Error in StreamActions", timeout_s=200)
    rest(bench.diary("client 1"), quiet_s=2.0)
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
    assert "bac: SmolVLAPolicy replays: " in story.servers[0]
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
        assert events(bench.diary(log))[-1] == "disconnect"
