"""LeRobot's asynchronous server and client with a bad wire in between: each fault ends in a recovery or a safe stop.

The robot is Push-T, the policy the shipped one with its schedule. What LeRobot 0.6.1 does: with a wire that delays,
the client drops the actions whose time has passed and goes on. With a wire that is cut, it executes what is left of its
chunk and keeps the robot where it is, and so it does when the server dies. Once the wire is mended it goes on by
itself, unless the one observation that the server must answer was lost: the client waits for that answer, and the
server takes what follows for the same again. Then the robot stands still until a new client comes.
A server that was killed and started again: `test_async.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc", reason="LeRobot's asynchronous inference needs it")
pytest.importorskip("gym_pusht")

from tests.lerobot import pusht
from tests.lerobot.bench import Bench, events, rest
from tests.lerobot.commands import Command, wait_until
from tests.lerobot.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.sim]

DELAY_S = 0.3  # each way; an answer takes longer than the half chunk that is left when it is asked for
QUIET_S = 2.0


@dataclass(frozen=True)
class Story:
    """The robot's actions, `[., 4]`, part by part, and what was said.

    Attributes:
        healthy: With a good wire.
        delayed: With one that delays.
        after_cut: From when it was cut until the robot stood still.
        mended: Once it was mended; of a new client if the robot of the first one stood still for 20 s.
        after_kill: From when the server was killed until the robot stood still.
    """

    healthy: np.ndarray
    delayed: np.ndarray
    after_cut: np.ndarray
    mended: np.ndarray
    after_kill: np.ndarray
    server: str
    client: str
    last_event: object


class BadlyWired(Bench):
    """A server, a bad wire, and clients whose robot is Push-T."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, pusht.site(folder / "site"))
        self.checkpoint = pusht.checkpoint(folder / "checkpoint", history=2)
        self.wire = Proxy(self.port)
        self.newest = folder / "none"

    def server(self) -> Command:
        return self.start_server("server", fps=10)

    def client(self, log: str) -> Command:
        self.newest = self.diary(log)
        options = ["--robot.type=pusht", "--robot.history=2", "--policy_type=diffusion_transformer"]
        return self.start_client(
            log, port=self.wire.port, fps=10, checkpoint=self.checkpoint, chunk=pusht.CHUNK, options=options
        )

    def actions(self) -> np.ndarray:
        """Of the newest client's robot."""
        return pusht.actions(self.newest)

    def moves(self, number: int, timeout_s: float = 500.0) -> bool:
        """Wait until the robot was given `number` more actions; whether it was."""
        wanted = len(self.actions()) + number
        return wait_until(lambda: len(self.actions()) >= wanted, timeout_s)

    def must_move(self, number: int) -> None:
        assert self.moves(number), "\n".join(command.output()[-2000:] for command in self.commands)

    def rest(self) -> None:
        """Wait until the robot has been given nothing for a while."""
        rest(self.newest, QUIET_S)

    def close(self) -> None:
        self.wire.close()
        super().close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadlyWired]:
    made = BadlyWired(tmp_path_factory.mktemp("bench"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def story(bench: BadlyWired) -> Story:
    server, client = bench.server(), bench.client("client 1")
    marks = [0]

    def mark() -> None:
        marks.append(len(bench.actions()))

    bench.must_move(2 * pusht.CHUNK)
    mark()
    bench.wire.delay_s = DELAY_S
    bench.must_move(pusht.CHUNK)
    bench.wire.delay_s = 0.0
    mark()
    bench.wire.cut()
    bench.rest()
    mark()
    healthy, delayed, after_cut = np.split(bench.actions(), marks[1:])[:3]

    bench.wire.mend()
    first = bench.newest
    if not bench.moves(1, timeout_s=20):
        client.interrupt()
        client.process.join(60)
        client, marks[-1] = bench.client("client 2"), 0
    bench.must_move(pusht.CHUNK)
    mark()
    server.kill()
    bench.rest()
    mended, after_kill = np.split(bench.actions()[marks[-2] :], [marks[-1] - marks[-2]])
    client.interrupt()
    client.process.join(60)
    said = (bench.folder / "client 1").read_text()
    last = events(first)[-1], events(bench.newest)[-1]
    return Story(healthy, delayed, after_cut, mended, after_kill, server.output(), said, last)


def test_the_server_serves_a_policy_that_follows_its_schedule(story):
    assert pusht.FOLLOWS in story.server
    assert len(story.healthy) >= 2 * pusht.CHUNK
    assert np.all((story.healthy >= 0) & (story.healthy <= 512))


def test_with_a_wire_that_delays_the_robot_goes_on_and_no_action_comes_twice(story):
    assert len(story.delayed) >= pusht.CHUNK
    targets = np.concatenate([story.healthy, story.delayed, story.after_cut])[:, :2]
    assert len(np.unique(targets, axis=0)) == len(targets)


def test_when_the_wire_is_cut_the_robot_finishes_its_chunk_at_most_and_the_client_says_why(story):
    assert len(story.after_cut) <= pusht.CHUNK
    assert "Error receiving actions" in story.client or "Error sending observation" in story.client


def test_when_the_wire_is_mended_the_robot_moves_again(story):
    assert len(story.mended) >= pusht.CHUNK


def test_when_the_server_dies_the_robot_finishes_its_chunk_at_most_and_is_let_go_of(story):
    assert len(story.after_kill) <= pusht.CHUNK
    assert story.last_event == ("disconnect", "disconnect")
