"""Graphs that share their memory take turns. What a GPU does with it is in the tests marked gpu."""

import threading

import pytest
import torch

from bac.plan.cuda import GraphedReplay
from bac.plan.graph_memory import GraphMemory, memory_of
from tests.bac.plan.runs import taped


class Stream:
    """Writes down what it is told."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def wait_event(self, _event) -> None:
        self.told.append(f"{self.name} waits")


@pytest.fixture
def told(monkeypatch):
    """What streams and the event of a memory are told, in order; there is no GPU in it."""
    told: list[str] = []
    streams = threading.local()

    class Event:
        def record(self, stream: Stream) -> None:
            told.append(f"{stream.name} has read")

    def current() -> Stream:
        return getattr(streams, "mine", None) or Stream(threading.current_thread().name, told)

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", current)
    return told


def test_a_turn_begins_when_the_results_of_the_last_were_read(told):
    memory = GraphMemory()
    for _ in range(2):
        with memory.turn():
            told.append("graph")
    name = threading.current_thread().name
    assert told == [f"{name} waits", "graph", f"{name} has read"] * 2


def test_turns_of_two_threads_never_overlap(told):
    memory = GraphMemory()

    def play() -> None:
        for _ in range(50):
            with memory.turn():
                told.append(f"{threading.current_thread().name} launches")

    threads = [threading.Thread(target=play, name=name) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = [told[start : start + 3] for start in range(0, len(told), 3)]
    assert len(turns) == 100
    for waits, launches, read in turns:
        name = waits.split()[0]
        assert (launches, read) == (f"{name} launches", f"{name} has read")


def test_a_graph_that_fails_hands_its_turn_on(told):
    memory = GraphMemory()
    with pytest.raises(RuntimeError), memory.turn():
        raise RuntimeError("out of memory")
    with memory.turn():
        told.append("graph")
    assert told[-2] == "graph"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_of_several_batch_sizes_share_memory_and_stay_right():
    def long(x):
        for _ in range(5):
            x = (x @ x.T @ x).tanh() + 1
        return x

    given = [torch.randn(rows, 64, device="cuda") for rows in (1, 2, 4, 8, 16)]
    graphs = [GraphedReplay(taped(long, x), [x]) for x in given]
    assert {graph._memory for graph in graphs} == {memory_of(torch.cuda.current_device())}
    streams = [torch.cuda.Stream() for _ in given]
    for _ in range(3):  # each on a stream of its own, the largest and the smallest in turns
        found = []
        for graph, x, stream in zip(graphs, given, streams, strict=True):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found.append(graph([x])[0])
        torch.cuda.synchronize()
        for y, x in zip(found, given, strict=True):
            torch.testing.assert_close(y, long(x))
