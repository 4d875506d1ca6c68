"""A denoising run that is broken off, anywhere, leaves a policy that works."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import bac
from bac.caching.interceptors.run import ContinuedRun, DenoisingRun
from bac.caching.interceptors.scope import RunScope
from bac.caching.interceptors.turn import Turn
from bac.errors import RunError
from tests.bac.models import TickPolicy

ONE = {"obs": torch.zeros(1, 1)}


def wrapped() -> TickPolicy:
    """Updates at steps 0 and 2 give 1 and 2, and each is reused once."""
    policy = TickPolicy(num_steps=4)
    return bac.wrap(policy, bac.Schedule(4, {"tick0": (0, 2)}), blocks=policy.blocks(), replay=False)


def chunk(policy: TickPolicy) -> float:
    policy.reset()
    return policy.predict_action_chunk(ONE).item()


@contextmanager
def interrupted_at(number: int) -> Iterator[list[int]]:
    """Ctrl-C before instruction `number` of those that begin and end a run; yields how many there were until then."""
    codes = [
        *(f.__code__ for f in (RunScope.__call__, RunScope._one_run, DenoisingRun.begin, DenoisingRun.end)),
        *(f.__code__ for f in (DenoisingRun._open, DenoisingRun._close)),
        *(f.__code__ for f in (Turn.take, Turn.leave, Turn.is_held_by, Turn._drop)),
    ]
    count = [0]

    def trace(frame, event, argument):
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count[0] += 1
            if count[0] == number:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # else python 3.12 reports no instructions at all
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


@pytest.mark.slow
def test_ctrl_c_at_any_instruction_leaves_a_policy_that_works():
    number, was_interrupted = 0, True
    while was_interrupted:
        number += 1
        policy, was_interrupted = wrapped(), False
        with interrupted_at(number):
            try:
                chunk(policy)
            except KeyboardInterrupt:
                was_interrupted = True
        assert [chunk(policy), chunk(policy)] == [6, 6], number
    assert number > 100


def test_ctrl_c_as_soon_as_the_turn_is_taken(monkeypatch):
    def interrupt(run):
        raise KeyboardInterrupt

    policy = wrapped()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DenoisingRun, "_open", interrupt)
        chunk(policy)
    assert chunk(policy) == 6


def test_ctrl_c_before_the_run_is_ended(monkeypatch):
    def interrupt(run):
        raise KeyboardInterrupt

    policy = wrapped()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DenoisingRun, "end", interrupt)
        chunk(policy)
    assert chunk(policy) == 6


FORK = """
import os, sys, threading
from tests.bac.caching.interceptors.test_turn import ONE, chunk, wrapped
policy = wrapped()
entered, leave = threading.Event(), threading.Event()
interceptor = vars(policy.ticks[0])["forward"]
compute = interceptor.original
interceptor.original = lambda x: (entered.set(), leave.wait(60), compute(x))[2]
thread = threading.Thread(target=policy.predict_action_chunk, args=(ONE,))
thread.start()
entered.wait(60)
child = os.fork()
if not child:
    interceptor.original = compute
    os._exit(int(chunk(policy)))
status = os.waitpid(child, 0)[1]
leave.set()
thread.join()
interceptor.original = compute
print(os.waitstatus_to_exitcode(status), int(chunk(policy)))
"""


@pytest.mark.slow
def test_a_fork_while_another_thread_runs_leaves_both_processes_a_policy_that_works():
    root = Path(__file__).parents[4]
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["6", "6"], done.stderr


def test_the_turn_is_its_first_callers_until_that_call_returns():
    turn, results = Turn(), []

    def outer():
        results.append(turn.take(sys._getframe()))
        inner()

    def inner():
        results.append(turn.take(sys._getframe()).thread)

    outer()  # and returns without leaving
    assert results == [None, threading.get_ident()]
    assert turn.take(sys._getframe()) is None


def test_one_of_many_threads_gets_the_turn():
    turn, start, stop = Turn(), threading.Barrier(7), threading.Barrier(7)
    winners = []

    def race():
        start.wait(10)
        if turn.take(sys._getframe()) is None:
            winners.append(threading.get_ident())
        stop.wait(10)

    for _ in range(20):
        threads = [threading.Thread(target=race) for _ in range(7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(winners) == 20


def test_a_call_that_never_got_the_turn_ends_nothing():
    run = DenoisingRun(["a"], 2)
    run.begin()

    def other():
        with pytest.raises(RunError, match="going on in this thread"):
            run.begin()
        run.end()

    other()
    assert run.thread == threading.get_ident()
    run.end()
    assert run.thread is None


def test_a_run_that_was_broken_off_hands_no_states_to_the_next():
    run = ContinuedRun(["a"], 1)

    def complete():
        run.begin()
        run.slots[0].features[0] = 7
        run.slots[0].num_evaluations = 1
        run.check_complete()
        run.end()

    def break_off():
        run.begin()
        assert run.slots[0].features == {0: 7}  # of the chunk before

    complete()
    break_off()
    run.begin()
    assert run.slots[0].features == {}
    run.end()
