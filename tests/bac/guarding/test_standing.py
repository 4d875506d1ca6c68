"""Where a guard stands among schedules, plans and threads, and what it does not fit."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import pytest
import torch

import bac
import bac.plan
from bac.caching.estimators import Taylor
from bac.caching.interceptors.cached import CachedBlock
from bac.caching.interceptors.patch import interceptors, stacked
from bac.caching.interceptors.run import DenoisingRun, Orders
from bac.caching.interceptors.turn import Turn
from bac.errors import MismatchError, RunError, ScheduleError
from bac.guarding import calibrate, report
from bac.guarding.guard import identity
from bac.guarding.interceptor import GuardInterceptor
from bac.published import FirstBlock, PreviousChunk
from tests.bac.guarding.models import (
    CALM,
    HELD,
    TWICE,
    WILD,
    RampPolicy,
    calibrated,
    drift,
    guarded,
    predict,
    stream,
    transformer,
)
from tests.bac.models import TickPolicy, obs, sweep

FIRST = bac.Replay(record="first")

# Where it stands


def test_unwrap_leaves_no_trace():
    policy = RampPolicy()
    before = [sorted(vars(module)) for module in policy.modules()]
    guard = calibrated(policy, response="dense")
    for replay in (False, FIRST):
        bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard, replay=replay)
        predict(policy, CALM)
        bac.unwrap(policy)
        assert [sorted(vars(module)) for module in policy.modules()] == before
        assert not list(interceptors(policy))


def test_a_deep_copy_has_a_guard_of_its_own():
    policy = guarded(response="dense")
    with pytest.warns(RuntimeWarning):
        predict(policy, WILD), predict(policy, WILD)
    twin = copy.deepcopy(policy)
    policy.reset()
    assert (predict(policy, WILD), predict(twin, WILD)) == (4, 10)
    assert (report(policy).num_chunks, report(twin).num_chunks) == (3, 3)
    twin.reset()
    assert predict(twin, CALM) == 4


def test_a_second_thread_is_refused_as_without_a_guard():
    policy = guarded()
    entered, leave = threading.Event(), threading.Event()
    interceptor = vars(policy.block)["forward"]
    compute = interceptor.original
    interceptor.original = lambda x: (entered.set(), leave.wait(10), compute(x))[2]
    first = threading.Thread(target=predict, args=(policy, CALM))
    first.start()
    assert entered.wait(10)
    with pytest.raises(RunError, match="going on in another thread"):
        predict(policy, CALM)
    leave.set()
    first.join()
    assert predict(policy, CALM) == 4


def test_ctrl_c_as_a_chunk_begins_or_ends_leaves_the_guard_on_duty(monkeypatch):
    """A guard that still holds its turn would let every later chunk pass unseen."""
    policy = guarded()
    for method in ("take", "leave"):
        whole = getattr(Turn, method)

        def interrupted(turn, frame, whole=whole):
            whole(turn, frame)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Turn, method, interrupted)
            predict(policy, CALM)
    before = report(policy).num_chunks
    assert predict(policy, CALM) == 4
    assert report(policy).num_chunks == before + 1


def test_an_exception_in_a_probed_run_leaves_the_policy_usable():
    policy = guarded()
    with pytest.raises(KeyError):
        policy.predict_action_chunk({})
    assert predict(policy, CALM) == 4
    assert report(policy).num_probed == 1


def test_the_fallback_is_latched_when_a_run_begins():
    run = DenoisingRun(["a"], num_steps=2)
    block = CachedBlock(run, 0, [True, False], fallback=[True, True])
    block.original = lambda x: x
    run.begin()
    block(torch.zeros(1))
    run.orders_ahead = Orders(fallback=True)
    assert block(torch.ones(1)) == 0
    run.end()
    run.begin()
    assert [block(torch.full((1,), x)).item() for x in (3.0, 4.0)] == [3, 4]


@pytest.mark.slow
def test_replay_interprets_what_is_probed_and_keeps_a_plan_of_either_schedule():
    plain = transformer(replay=FIRST)
    watched = transformer(replay=FIRST, probe_every=3, response="dense", num_cells=99)
    for one, other in zip(stream(plain), stream(watched), strict=True):
        assert torch.equal(one, other)
    assert report(watched).num_probed >= 1
    assert len(bac.plan.plans(watched)) == 1

    (duty,) = (i for i in stacked(watched) if isinstance(i, GuardInterceptor))
    duty.monitor.alarm("to see the other")
    dense = stream(bac.wrap(transformer(replay=False), sweep(plain, tuple(range(5)), 5), replay=False))
    for one, other in zip(stream(watched), dense, strict=True):
        assert torch.equal(one, other)
    assert len(bac.plan.plans(watched)) == 2
    watched.reset()
    for one, other in zip(stream(watched), stream(plain), strict=True):
        assert torch.equal(one, other)
    assert len(bac.plan.plans(watched)) == 2


@pytest.mark.slow
def test_plans_made_beforehand_are_of_both_schedules_and_no_chunk_of_the_guards():
    watched = transformer(replay=bac.Replay(record="ahead"), probe_every=1, response="dense")
    plan = bac.plan.record(watched, obs(1, 0))
    dense, sparse = bac.plan.plans(watched)
    assert plan is sparse
    assert len(sparse.program.instructions) < len(dense.program.instructions)
    assert report(watched).num_chunks == 0


# What it does not fit


def test_a_guard_for_another_schedule_is_refused_and_the_policy_is_left_alone():
    policy = RampPolicy()
    guard = calibrated(policy)
    with pytest.raises(MismatchError) as caught:
        bac.wrap(policy, TWICE, blocks=policy.blocks(), guard=guard)
    assert f"is for the schedule {identity(HELD)}, this one is {identity(TWICE)}" in str(caught.value)
    assert "bac.guarding.calibrate(policy, schedule, batches)" in str(caught.value)
    with pytest.raises(MismatchError, match="is for the estimator hold, this one is taylor-1"):
        along = bac.Denoising(schedule=HELD, estimator=Taylor(1))
        bac.wrap(policy, along, blocks=policy.blocks(), guard=guard)
    with pytest.raises(MismatchError, match=r"policy: the guard has a\.Policy, the policy has .*RampPolicy"):
        other = replace(guard, fingerprint=replace(guard.fingerprint, policy="a.Policy"))
        bac.wrap(policy, HELD, blocks=policy.blocks(), guard=other)
    assert not list(interceptors(policy))


def test_what_no_guard_can_watch_is_refused():
    policy = RampPolicy()
    guard = calibrated(policy)
    options = {"blocks": policy.blocks(), "guard": guard}
    with pytest.raises(
        ScheduleError, match="guard: own solver, own steps reuses nothing, so there is nothing to watch"
    ):
        bac.wrap(policy, **options)
    with pytest.raises(ScheduleError, match="guard: needs a fixed schedule .* but FirstBlock is not one"):
        bac.wrap(policy, FirstBlock(4, 0.1), **options)
    with pytest.raises(ScheduleError, match="guard: needs a fixed schedule .* but previous_chunk is not one"):
        bac.wrap(policy, bac.Denoising(schedule=HELD, estimator=PreviousChunk()), **options)
    with pytest.raises(ScheduleError, match="nothing to watch"):
        calibrate(policy, bac.Schedule(4, {"ramp": (0, 1, 2, 3)}), [drift(1.0, 1.0)], blocks=policy.blocks())
    with pytest.raises(ScheduleError, match="a denser schedule needs as many steps, 4"):
        fewer = replace(guard, response=bac.Schedule(3, {"ramp": (0,)}))
        bac.wrap(policy, HELD, blocks=policy.blocks(), guard=fewer, strict=False)


def test_a_policy_without_a_guard_has_no_report():
    policy = TickPolicy()
    with pytest.raises(RunError, match=r"has no guard; put one on: bac\.wrap\(policy, schedule, guard=guard\)"):
        report(policy)


def test_a_guard_stands_on_a_policy_that_was_trained_on_and_one_line_says_so(caplog):
    policy = RampPolicy()
    guard = calibrated(policy)
    bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard)
    assert not caplog.records
    other = replace(guard, fingerprint=replace(guard.fingerprint, weights="0123456789abcdef"))
    bac.wrap(policy, HELD, blocks=policy.blocks(), guard=other)
    assert [record.message for record in caplog.records] == [
        "guard: was calibrated on other weights than RampPolicy has; calibrate anew"
    ]
