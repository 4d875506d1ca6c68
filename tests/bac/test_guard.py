"""The drift guard, on a policy whose caching errors are fractions one knows."""

from __future__ import annotations

import copy
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import bac
import bac.plan
from bac.cache import Orders
from bac.errors import CalibrationError, MismatchError, RunError, ScheduleError
from bac.estimators import PreviousChunk, Taylor
from bac.guarding import Guard, report
from bac.guarding.evidence import STAKES, Evidence, allowed_share
from bac.guarding.guard import identity
from bac.guarding.guarded import Guarded
from bac.guarding.lookout import Lookout
from bac.guarding.probe import Probe
from bac.patch import Interceptor, stacked
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep

CALM, WILD = 0.25, 1.0


class Same(nn.Module):
    """Returns its input, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.weight.detach()


class RampPolicy(nn.Module):
    """Adds up what its block returns of 1, 1 + drift, 1 + 2 drift, 1 + 3 drift.

    Held from step 0, the block is off by ``s drift / (1 + s drift)`` at step s: at a drift of 1 by 1/2, 2/3, 3/4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.block, self.feeder = Same(), Same()
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        inputs = [1 + step * batch["drift"] for step in range(4)]
        return torch.stack([self.block(self.feeder(x)) for x in inputs], dim=1).sum(dim=1, keepdim=True)

    def blocks(self, *feeders: bac.block.Site) -> list[bac.Block]:
        return [bac.Block("ramp", bac.BlockKind.FEED_FORWARD, 0, self.block, feeders=feeders)]


HELD = bac.Schedule(4, {"ramp": (0,)})
TWICE = bac.Schedule(4, {"ramp": (0, 2)})


def drift(*values: float) -> dict[str, Tensor]:
    return {"drift": torch.tensor(values)[:, None]}


def calibrated(policy: RampPolicy, schedule: bac.Schedule = HELD, **options) -> Guard:
    chosen = {"probe_every": 1, "num_cells": 3, "blocks": policy.blocks(), "progress": False, **options}
    return Guard.calibrate(policy, schedule, [drift(CALM, CALM / 2)] * 50, **chosen)


def guarded(**options) -> RampPolicy:
    """With a guard that looks at every cell of every chunk and cries when the evidence is ten."""
    policy = RampPolicy()
    guard = replace(calibrated(policy, patience=10, **options), action_range=None)
    return bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard, executor="interpret")


def predict(policy: nn.Module, *values: float) -> float:
    with torch.no_grad():
        return policy.predict_action_chunk(drift(*values)).item()


# Evidence


def test_evidence_begins_anew_whenever_it_is_lost():
    evidence = Evidence(0.5)
    assert evidence.value == 0
    for _ in range(30):
        evidence.add(0.0)
        assert evidence.value == pytest.approx(1 - STAKES.mean())
    evidence.add(1.0)
    assert evidence.value == pytest.approx(1 + STAKES.mean())


def test_at_the_allowed_share_evidence_stays_where_it_is():
    evidence = Evidence(0.25)
    for _ in range(9):
        evidence.add(0.25)
    assert evidence.value == pytest.approx(1)


@pytest.mark.parametrize("cells", [1, 8])
def test_the_mean_time_to_a_false_alarm_is_at_least_what_is_promised(cells):
    generator, patience, times = np.random.default_rng(0), 10, []
    for _ in range(60):
        evidence, looks = Evidence(0.2), 0
        while evidence.value < patience and looks < 200:
            evidence.add(float(np.mean(generator.random(cells) < 0.2)))
            looks += 1
        times.append(looks)
    assert np.mean(times) >= patience


def test_a_drift_to_exceeding_everywhere_is_found_within_three_looks():
    evidence = Evidence(0.035)
    for _ in range(1000):
        evidence.add(0.0)
    for _ in range(3):
        evidence.add(1.0)
    assert evidence.value >= 1000


@settings(max_examples=30)
@given(st.integers(1, 300), st.floats(0.5, 0.999))
def test_the_largest_of_n_is_exceeded_as_wilks_says(n, confidence):
    assert allowed_share(n, n, confidence=confidence) == pytest.approx(1 - (1 - confidence) ** (1 / n), abs=1e-9)


@settings(max_examples=20)
@given(st.integers(2, 40), st.data())
def test_a_lower_rank_may_be_exceeded_more_often_than_its_share(n, data):
    rank = data.draw(st.integers(1, n - 1))
    assert 1 - rank / n < allowed_share(n, rank) < 1
    assert allowed_share(n, rank + 1) < allowed_share(n, rank)


# Probes


def test_an_error_is_relative_and_by_sample_and_the_worst_of_the_contexts():
    probe = Probe([("a", 1)])
    computed = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    probe.compare("a", 1, computed + torch.tensor([[1.0, 0.0], [0.0, 0.0]]), computed)
    probe.compare("a", 1, (computed + 1, None), (computed, None))
    assert probe.errors()["a", 1].tolist() == [0.5, 0.5]
    assert Probe([]).errors() == {}


def test_the_batch_may_be_another_dimension():
    probe = Probe([("a", 1)], batch_dim=1)
    probe.compare("a", 1, torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    assert probe.errors()["a", 1].tolist() == [0, 0.5]


def test_an_error_from_nothing_is_infinite():
    probe = Probe([("a", 1)])
    probe.compare("a", 1, torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1))
    assert probe.errors()["a", 1].tolist() == [0, np.inf]


# Calibration


def test_limits_are_the_errors_of_the_cached_run():
    policy = RampPolicy()
    guard = calibrated(policy)
    assert guard.limits["ramp"][0] is None
    assert guard.limits["ramp"][1:] == pytest.approx((1 / 5, 1 / 3, 3 / 7), rel=1e-3)
    assert guard.num_runs == 100
    assert guard.allowed == pytest.approx(allowed_share(100, 99))
    assert guard.action_range == ((4.0,), (4.0,))
    assert not list(bac.patch.interceptors(policy))


def test_the_limit_is_a_quantile_of_the_runs():
    errors = {("ramp", step): np.arange(1.0, 11.0) for step in (1, 2, 3)}
    guard = Guard.of_errors(HELD, errors, quantile=0.8)
    assert guard.limits["ramp"][1] == pytest.approx(8, rel=1e-3)
    assert guard.allowed == allowed_share(10, 8)


def test_a_few_cells_can_be_watched_instead_of_all():
    guard = calibrated(RampPolicy(), num_watched=2)
    assert len(guard.cells) == 2
    assert set(guard.cells) < {("ramp", 1), ("ramp", 2), ("ramp", 3)}


def test_calibration_leaves_the_random_state_alone():
    policy, batch = RampPolicy(), drift(1.0, 1.0)
    torch.manual_seed(3)
    Guard.calibrate(policy, HELD, [batch], blocks=policy.blocks(), progress=False)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_what_cannot_be_calibrated_on_is_refused():
    policy = RampPolicy()
    options = {"blocks": policy.blocks(), "progress": False}
    with pytest.raises(CalibrationError, match="at least two runs, 100 or more to be sharp, got 1"):
        Guard.calibrate(policy, HELD, [drift(1.0)], **options)
    with pytest.raises(CalibrationError, match=r"got one batch; pass \[batch\]"):
        Guard.calibrate(policy, HELD, drift(1.0), **options)
    with pytest.raises(CalibrationError, match="ramp: its output is not finite at denoising step 1"):
        Guard.calibrate(policy, HELD, [drift(float("nan"), 1.0)], **options)
    with pytest.raises(CalibrationError, match="looks back an action chunk"):
        Guard.calibrate(policy, HELD, [drift(1.0, 1.0)], estimator=PreviousChunk(), **options)
    bac.wrap(policy, HELD, blocks=policy.blocks())
    with pytest.raises(CalibrationError, match=r"call bac\.unwrap\(policy\) first"):
        Guard.calibrate(policy, HELD, [drift(1.0, 1.0)], **options)


def test_a_guard_survives_the_disk(tmp_path):
    guard = calibrated(RampPolicy(), response=TWICE, cooldown=7)
    guard.save(tmp_path / "guard.json")
    loaded = Guard.load(tmp_path / "guard.json")
    assert {name: getattr(loaded, name) for name in vars(guard)} == vars(guard)
    (tmp_path / "guard.json").write_text("{}")
    with pytest.raises(ScheduleError, match="not a complete guard of version 1"):
        Guard.load(tmp_path / "guard.json")


def test_a_guard_draws_itself():
    errors = {("ramp", step): np.full(64, error) for step, error in ((1, 0.01), (2, 0.35), (3, 2.0))}
    assert str(Guard.of_errors(HELD, errors)) == (
        "Guard: 3 watched cells of 1 blocks x 4 steps, limits from 64 runs; 6.9 % of looks may exceed them\n"
        "  one chunk in 150 is probed at 16 cells; 1000 probed chunks or more to a false alarm; then: log\n"
        "  ramp  #03+        # computed or not watched  0-9 limit of the relative error in tenths  + 1 or more"
    )


@pytest.mark.parametrize("wrong", [{"probe_every": 0}, {"response": "panic"}, {"cooldown": 0}, {"allowed": 1.0}])
def test_a_value_out_of_range_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ScheduleError, match=f"guard: {name} must be"):
        replace(calibrated(RampPolicy()), **wrong)


# Looking


def transformer(**options) -> TinyTransformerPolicy:
    torch.manual_seed(1)
    policy = TinyTransformerPolicy(num_steps=5)
    schedule = sweep(policy, (0, 3), 5)
    guard = options.pop("guard", None)
    if guard:
        batches = [obs(4, seed) for seed in range(3)]
        estimator = options.get("estimator")
        guard = Guard.calibrate(policy, schedule, batches, progress=False, estimator=estimator, **guard)
    return bac.wrap(policy, schedule, guard=guard, **options)


def stream(policy: nn.Module, mode=torch.no_grad, chunks: int = 6) -> list[Tensor]:
    made = []
    for seed in range(chunks):
        torch.manual_seed(seed)
        with mode():
            made.append(policy.predict_action_chunk(obs(1, seed)).detach())
    return made


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("estimator", [None, Taylor(1)])
def test_a_probed_chunk_is_bit_equal_to_any_other(mode, estimator):
    plain = transformer(estimator=estimator, executor="interpret")
    watched = transformer(estimator=estimator, executor="interpret", guard={"probe_every": 1, "num_cells": 99})
    for one, other in zip(stream(plain, mode), stream(watched, mode), strict=True):
        assert torch.equal(one, other)
    assert report(watched).num_probed == 6
    assert report(watched).num_looks == 6 * 6 * 3  # chunks, blocks, reused steps


def test_errors_are_those_of_the_cached_run_not_of_the_dense_one():
    """A probed block sees what the cached run feeds it; so its true value differs from the untouched policy's."""
    watched = transformer(executor="interpret", guard={"probe_every": 1, "num_cells": 99})
    (duty,) = (i for i in stacked(watched) if isinstance(i, Guarded))
    seen = []
    duty.lookout.note = lambda errors: seen.append(errors)
    stream(watched, chunks=1)
    assert set(seen[0]) == set(duty.lookout.guard.cells)
    bac.unwrap(watched)
    features = bac.recording.record_features(bac.wrap(watched, sweep(watched, (0, 3), 5)), obs(1, 0), seed=0)
    first = next(iter(features))
    with torch.no_grad():
        torch.manual_seed(0)
        bac.unwrap(watched)
        truth = bac.recording.record_features(watched, obs(1, 0), seed=0)
    # At step 1 the first block of the denoiser has seen x_1 of the run, which after one full step is the dense one's.
    expected = (features[first][1] - truth[first][1]).abs().sum() / truth[first][1].abs().sum()
    assert seen[0][first, 1] == pytest.approx(expected.item(), rel=1e-5)


def test_what_feeds_a_block_is_computed_for_the_comparison_and_changes_nothing():
    policy = RampPolicy()
    blocks = policy.blocks(bac.block.Site(policy.feeder))
    guard = Guard.calibrate(policy, HELD, [drift(CALM)] * 50, blocks=blocks, progress=False, probe_every=1, num_cells=2)
    assert guard.limits["ramp"][1:] == pytest.approx((1 / 5, 1 / 3, 3 / 7), rel=1e-3)
    bac.wrap(policy, HELD, blocks=blocks, guard=guard, executor="interpret")
    policy.block.calls = policy.feeder.calls = 0
    assert predict(policy, CALM) == 4.0
    assert (policy.block.calls, policy.feeder.calls) == (3, 3)
    assert report(policy).num_exceeded == 0


def test_guidance_is_compared_context_by_context():
    run = bac.cache.DenoisingRun(["a"], num_steps=2, num_contexts=2)
    block = bac.cache.CachedBlock(run, 0, [True, False])
    block.original = lambda x: x
    run.orders_ahead = Orders(probe=Probe([("a", 1)]))
    run.begin()
    inputs = [[[1.0]], [[-4.0]], [[2.0]], [[-4.0]]]
    assert [block(torch.tensor(x)).item() for x in inputs] == [1, -4, 1, -4]
    assert run.orders.probe.errors()["a", 1].tolist() == [0.5]


def test_one_chunk_in_so_many_is_probed_on_average_and_the_seed_decides_which():
    guard = replace(calibrated(RampPolicy()), probe_every=10)

    def probed(seed: int) -> list[int]:
        lookout, found = Lookout(replace(guard, seed=seed)), []
        for chunk in range(2000):
            if cells := lookout.begin():
                found.append(chunk)
                lookout.note({cell: np.zeros(1) for cell in cells})
        return found

    assert 180 <= len(probed(0)) <= 220
    assert probed(0) == probed(0) != probed(1)


def test_evidence_makes_it_look_more_often():
    lookout = Lookout(replace(calibrated(RampPolicy()), probe_every=50, patience=10**99))
    looks = 0
    for _ in range(200):
        if cells := lookout.begin():
            looks += 1
            lookout.note({cell: np.ones(1) for cell in cells})
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


# Where it stands


def test_unwrap_leaves_no_trace():
    policy = RampPolicy()
    before = [sorted(vars(module)) for module in policy.modules()]
    guard = calibrated(policy, response="dense")
    for executor in ("interpret", "replay"):
        bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard, executor=executor)
        predict(policy, CALM)
        bac.unwrap(policy)
        assert [sorted(vars(module)) for module in policy.modules()] == before
        assert not [v for m in policy.modules() for v in vars(m).values() if isinstance(v, Interceptor)]


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


def test_an_exception_in_a_probed_run_leaves_the_policy_usable():
    policy = guarded()
    with pytest.raises(KeyError):
        policy.predict_action_chunk({})
    assert predict(policy, CALM) == 4
    assert report(policy).num_probed == 1


def test_the_fallback_is_latched_when_a_run_begins():
    run = bac.cache.DenoisingRun(["a"], num_steps=2)
    block = bac.cache.CachedBlock(run, 0, [True, False], fallback=[True, True])
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
    plain = transformer(executor="replay")
    watched = transformer(executor="replay", guard={"probe_every": 3, "response": "dense", "num_cells": 99})
    for one, other in zip(stream(plain), stream(watched), strict=True):
        assert torch.equal(one, other)
    assert report(watched).num_probed >= 1
    assert len(bac.plan.plans(watched)) == 1

    (duty,) = (i for i in stacked(watched) if isinstance(i, Guarded))
    duty.lookout.alarm("to see the other")
    dense = stream(bac.wrap(transformer(), sweep(plain, tuple(range(5)), 5), executor="interpret"))
    for one, other in zip(stream(watched), dense, strict=True):
        assert torch.equal(one, other)
    assert len(bac.plan.plans(watched)) == 2
    watched.reset()
    for one, other in zip(stream(watched), stream(plain), strict=True):
        assert torch.equal(one, other)
    assert len(bac.plan.plans(watched)) == 2


@pytest.mark.slow
def test_plans_made_beforehand_are_of_both_schedules_and_no_chunk_of_the_guards():
    guard = {"probe_every": 1, "response": "dense"}
    watched = transformer(executor="replay", unseen="interpret", guard=guard)
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
    assert "bac.Guard.calibrate(policy, schedule, batches)" in str(caught.value)
    with pytest.raises(MismatchError, match="is for the estimator hold, this one is taylor-1"):
        bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard, estimator=Taylor(1))
    with pytest.raises(MismatchError, match=r"policy: the guard has a\.Policy, the policy has .*RampPolicy"):
        other = replace(guard, fingerprint=replace(guard.fingerprint, policy="a.Policy"))
        bac.wrap(policy, HELD, blocks=policy.blocks(), guard=other)
    assert not list(bac.patch.interceptors(policy))


def test_what_no_guard_can_watch_is_refused():
    policy = RampPolicy()
    guard = calibrated(policy)
    options = {"blocks": policy.blocks(), "guard": guard}
    with pytest.raises(ScheduleError, match="guard: watches a fixed schedule .* which NoneType is not"):
        bac.wrap(policy, None, **options)
    with pytest.raises(ScheduleError, match="which previous_chunk is not"):
        bac.wrap(policy, HELD, estimator=PreviousChunk(), **options)
    with pytest.raises(ScheduleError, match="nothing to watch"):
        Guard.calibrate(policy, bac.Schedule(4, {"ramp": (0, 1, 2, 3)}), [drift(1.0, 1.0)], blocks=policy.blocks())
    with pytest.raises(ScheduleError, match="a denser schedule needs as many steps, 4"):
        fewer = replace(guard, response=bac.Schedule(3, {"ramp": (0,)}))
        bac.wrap(policy, HELD, blocks=policy.blocks(), guard=fewer, strict=False)


def test_a_policy_without_a_guard_has_no_report():
    policy = TickPolicy()
    with pytest.raises(RunError, match=r"has no guard; put one on: bac\.wrap\(policy, schedule, guard=guard\)"):
        report(policy)
