"""What is looked at, and what follows from it."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import bac
from bac.caching.block import Site
from bac.caching.estimators import Taylor
from bac.caching.interceptors.cached import CachedBlock
from bac.caching.interceptors.patch import stacked
from bac.caching.interceptors.run import DenoisingRun, Orders
from bac.guarding import calibrate, report
from bac.guarding.interceptor import GuardInterceptor
from bac.guarding.monitor import Monitor
from bac.guarding.probe import Probe
from bac.recording import record_features
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
from tests.bac.models import obs, sweep

# Looking


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("estimator", [None, Taylor(1)])
def test_a_probed_chunk_is_bit_equal_to_any_other(mode, estimator):
    plain = transformer(estimator, replay=False)
    watched = transformer(estimator, replay=False, probe_every=1, num_cells=99)
    for one, other in zip(stream(plain, mode), stream(watched, mode), strict=True):
        assert torch.equal(one, other)
    assert report(watched).num_probed == 6
    assert report(watched).num_looks == 6 * 6 * 3  # chunks, blocks, reused steps


def test_errors_are_those_of_the_cached_run_not_of_the_dense_one():
    """A probed block sees what the cached run feeds it; so its true value differs from the untouched policy's."""
    watched = transformer(replay=False, probe_every=1, num_cells=99)
    (duty,) = (i for i in stacked(watched) if isinstance(i, GuardInterceptor))
    seen = []
    duty.monitor.note = lambda errors: seen.append(errors)
    stream(watched, chunks=1)
    assert set(seen[0]) == set(duty.monitor.guard.cells)
    bac.unwrap(watched)
    features = record_features(bac.wrap(watched, sweep(watched, (0, 3), 5)), obs(1, 0), seed=0)
    first = next(iter(features))
    with torch.no_grad():
        torch.manual_seed(0)
        bac.unwrap(watched)
        truth = record_features(watched, obs(1, 0), seed=0)
    # At step 1 the first block of the denoiser has seen x_1 of the run, which after one full step is the dense one's.
    expected = (features[first][1] - truth[first][1]).abs().sum() / truth[first][1].abs().sum()
    assert seen[0][first, 1] == pytest.approx(expected.item(), rel=1e-5)


def test_what_feeds_a_block_is_computed_for_the_comparison_and_changes_nothing():
    policy = RampPolicy()
    blocks = policy.blocks(Site(policy.feeder))
    guard = calibrate(policy, HELD, [drift(CALM)] * 50, blocks=blocks, progress=False, probe_every=1, num_cells=2)
    assert guard.limits["ramp"][1:] == pytest.approx((1 / 5, 1 / 3, 3 / 7), rel=1e-3)
    bac.wrap(policy, HELD, blocks=blocks, guard=guard, replay=False)
    policy.block.calls = policy.feeder.calls = 0
    assert predict(policy, CALM) == 4.0
    assert (policy.block.calls, policy.feeder.calls) == (3, 3)
    assert report(policy).num_exceeded == 0


def test_guidance_is_compared_context_by_context():
    run = DenoisingRun(["a"], num_steps=2, num_contexts=2)
    block = CachedBlock(run, 0, [True, False])
    block.original = lambda x: x
    run.orders_ahead = Orders(probe=Probe([("a", 1)]))
    run.begin()
    inputs = [[[1.0]], [[-4.0]], [[2.0]], [[-4.0]]]
    assert [block(torch.tensor(x)).item() for x in inputs] == [1, -4, 1, -4]
    assert run.orders.probe.errors()["a", 1].tolist() == [0.5]


def test_one_chunk_in_so_many_is_probed_on_average_and_the_seed_decides_which():
    guard = replace(calibrated(RampPolicy()), probe_every=10)

    def probed(seed: int) -> list[int]:
        monitor, found = Monitor(replace(guard, seed=seed)), []
        for chunk in range(2000):
            if cells := monitor.begin():
                found.append(chunk)
                monitor.note({cell: np.zeros(1) for cell in cells})
        return found

    assert 180 <= len(probed(0)) <= 220
    assert probed(0) == probed(0) != probed(1)


def test_evidence_makes_it_look_more_often():
    monitor = Monitor(replace(calibrated(RampPolicy()), probe_every=50, patience=10**99))
    looks = 0
    for _ in range(200):
        if cells := monitor.begin():
            looks += 1
            monitor.note({cell: np.ones(1) for cell in cells})
    assert looks >= 12  # not 4


# Responding


def test_on_what_it_was_calibrated_on_it_keeps_quiet():
    policy = guarded()
    for _ in range(50):
        assert predict(policy, CALM) == 4.0
    seen = report(policy)
    assert (seen.num_chunks, seen.num_probed, seen.num_looks) == (50, 50, 150)
    assert (seen.num_exceeded, seen.num_alarms, seen.falls_back) == (0, 0, False)


def test_a_shift_is_warned_of_once_and_counted():
    policy = guarded()
    with pytest.warns(RuntimeWarning, match=r"drift guard, chunk 2: .* 100 % of the last 3 looks .* 6\.5 % may be"):
        predict(policy, WILD), predict(policy, WILD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            assert predict(policy, WILD) == 4.0
    seen = report(policy)
    assert (seen.num_alarms, seen.num_exceeded, seen.num_fallen_back) == (3, 18, 0)
    assert [alarm.chunk for alarm in seen.alarms] == [2, 4, 6]
    assert "ramp: 18 above" in str(seen)


def test_dense_computes_everything_from_the_next_chunk_on_until_reset():
    policy = guarded(response="dense")
    with pytest.warns(RuntimeWarning, match=r"every block is computed, until policy\.reset\(\)"):
        assert [predict(policy, WILD) for _ in range(4)] == [4, 4, 10, 10]
    assert report(policy).falls_back
    policy.reset()
    assert predict(policy, WILD) == 4
    assert report(policy).num_fallen_back == 2


def test_a_denser_schedule_is_followed_and_a_cooldown_ends_it_where_reset_does_not():
    policy = guarded(response=TWICE, cooldown=3)
    with pytest.warns(RuntimeWarning, match="the denser schedule is followed, until 3 chunks have been made"):
        predict(policy, WILD), predict(policy, WILD)
    policy.reset()
    assert [predict(policy, WILD) for _ in range(4)] == [1 + 1 + 3 + 3] * 3 + [4]


def test_actions_that_are_not_finite_are_an_alarm_at_once():
    policy = RampPolicy()
    guard = replace(calibrated(policy), probe_every=1000, response="dense")
    bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard)
    policy.block.weight.data.fill_(float("inf"))
    with pytest.warns(RuntimeWarning, match="drift guard, chunk 1: the actions are not finite; from the next chunk on"):
        predict(policy, CALM)


def test_actions_far_outside_of_the_calibrated_range_are_an_alarm_at_once():
    policy = RampPolicy()
    guard = replace(calibrated(policy), probe_every=1000, action_range=((2.0,), (4.0,)))
    bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard)
    policy.block.weight.data.fill_(1.25)  # 5 is half the range above the range
    assert predict(policy, CALM) == 5
    policy.block.weight.data.fill_(1.5)
    with pytest.warns(RuntimeWarning, match="far outside of the calibrated range, in dimension 0"):
        predict(policy, CALM)


@pytest.mark.filterwarnings("error")
def test_an_action_that_never_changed_may_change_a_little():
    policy = RampPolicy()
    guard = replace(calibrated(policy), probe_every=1000)
    assert guard.action_range == ((4.0,), (4.0,))  # a gripper that was always open has a range of no width
    bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard)
    policy.block.weight.data.fill_(0.999)
    assert predict(policy, CALM) == pytest.approx(3.996)
    policy.block.weight.data.fill_(0.9)
    with pytest.warns(RuntimeWarning, match="far outside of the calibrated range, in dimension 0"):
        predict(policy, CALM)
