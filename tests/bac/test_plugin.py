"""`bac.wrap` and `bac.unwrap`: one code path on and off, what stands where, and what is refused."""

from __future__ import annotations

import logging

import pytest
import torch

import bac
import bac.plan
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors, stack_on
from bac.caching.interceptors.scope import RunScope
from bac.errors import MismatchError, ScheduleError, UnsupportedPolicyError
from bac.fingerprint import Fingerprint
from bac.guarding import calibrate
from bac.guarding.interceptor import GuardInterceptor
from bac.measured import Measured
from bac.plan.executor import Replayer
from bac.published import FirstBlock, PreviousChunk
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep

ONE = {"obs": torch.zeros(1, 1)}
ONE_UPDATE = bac.Schedule(4, {"tick0": (0,)})


def wrapped(steps: tuple[int, ...], num_steps: int = 4) -> TickPolicy:
    policy = TickPolicy(num_steps)
    return bac.wrap(policy, bac.Schedule(num_steps, {"tick0": steps}), blocks=policy.blocks())


def test_wrap_twice_reconfigures():
    policy = wrapped((0, 2))
    bac.wrap(policy, bac.Schedule(4, {"tick0": (0,)}), blocks=policy.blocks())
    assert policy.predict_action_chunk(ONE).item() == 4 * 1


@pytest.mark.parametrize(("low", "warnings"), [(0.11, 1), (0.001, 0)])
def test_a_way_that_was_measured_to_lead_elsewhere_warns_when_it_is_put_on(caplog, low, warnings):
    policy = TickPolicy(4)
    measured = Measured("energy distance", 0.14, low, 0.17, 0.004, 0.08, 1.6, 24, 8, "DDPMScheduler, 100 steps")
    what = bac.Denoising(schedule=bac.Schedule(4, {"tick0": (0,)}), measured=measured)
    bac.wrap(policy, what, blocks=policy.blocks(), replay=False)
    said = [record.message for record in caplog.records if "energy distance 0.1400" in record.message]
    assert len(said) == warnings and all("on TickPolicy" in text for text in said)


def test_wrap_returns_the_policy_and_unwrap_is_harmless_twice():
    policy = TickPolicy()
    assert bac.wrap(policy, bac.Schedule(4, {"tick0": (0,)}), blocks=policy.blocks()) is policy
    assert bac.unwrap(bac.unwrap(policy)) is policy
    assert policy.predict_action_chunk(ONE).item() == 1 + 2 + 3 + 4


def test_an_attribute_that_already_shadowed_the_method_is_put_back():
    policy = TickPolicy()
    policy.ticks[0].forward = lambda x: x + 7
    own = policy.ticks[0].forward
    bac.wrap(policy, bac.Schedule(4, {"tick0": (0,)}), blocks=policy.blocks())
    assert policy.predict_action_chunk(ONE).item() == 4 * 7
    bac.unwrap(policy)
    assert vars(policy.ticks[0])["forward"] is own


# Replay


def predict(policy, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        return policy.predict_action_chunk(obs(2, seed))


def replayers(policy):
    return [found for found in stack_on(policy, "predict_action_chunk") if isinstance(found, Replayer)]


def test_wrap_alone_makes_the_same_actions_chunk_after_chunk():
    policy = TinyTransformerPolicy()
    dense = [predict(policy, seed) for seed in range(5)]
    assert bac.wrap(policy) is policy
    for seed in range(5):
        assert torch.equal(predict(policy, seed), dense[seed])
    assert bac.describe(policy).num_replays == 3  # of one shape the second chunk is recorded, the others are replayed
    assert torch.equal(predict(bac.unwrap(policy)), dense[0])


def test_nothing_and_no_replay_is_refused_and_the_policy_is_left_alone():
    policy = TinyTransformerPolicy()
    bac.wrap(policy, sweep(policy, (0, 3), 7))
    before = [dict(vars(module)) for module in policy.modules()]
    with pytest.raises(
        ScheduleError, match="what: None computes every block, which only replay speeds up; leave replay"
    ):
        bac.wrap(policy, None, replay=False)
    assert [dict(vars(module)) for module in policy.modules()] == before


def across_chunks(policy):
    return bac.Denoising(schedule=sweep(policy, (0, 3), 7), estimator=PreviousChunk())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda policy: FirstBlock(7, 0.1), "FirstBlock makes a run depend on what it sees"),
        (across_chunks, "previous_chunk makes a run depend on the run before"),
    ],
)
def test_options_of_replay_insist_and_true_falls_back(make, reason):
    policy = TinyTransformerPolicy()
    with pytest.raises(ScheduleError, match=f"replay: {reason}, so it cannot be replayed. Give .* replay=False"):
        bac.wrap(policy, make(policy), replay=bac.Replay())
    assert not list(interceptors(policy))
    for replay in (True, False):
        assert replayers(bac.wrap(policy, make(policy), replay=replay)) == []


def test_a_run_that_turns_out_not_to_be_replayable_is_a_warning_if_insisted_on_and_else_one_log_line(caplog):
    policy = TickPolicy(num_steps=2)
    schedule = bac.Schedule(2, {"tick0": (0, 1)})
    caplog.set_level(logging.INFO, "bac.plan.executor")
    bac.wrap(policy, schedule, blocks=policy.blocks())
    with torch.no_grad():
        for _ in range(4):
            policy.predict_action_chunk(ONE)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("TickPolicy: a denoising run cannot be replayed, so it is interpreted: its")
    bac.wrap(policy, schedule, blocks=policy.blocks(), replay=bac.Replay(record="first"))
    with (
        torch.no_grad(),
        pytest.warns(RuntimeWarning, match="a denoising run cannot be replayed, so it is interpreted"),
    ):
        policy.predict_action_chunk(ONE)


# What stands where


@pytest.mark.parametrize(("replay", "kinds"), [(False, [RunScope]), (True, [Replayer, RunScope])])
def test_the_guard_is_asked_first_then_the_replay_then_the_run(replay, kinds):
    policy = TinyTransformerPolicy()
    schedule = sweep(policy, (0, 3), 7)
    guard = calibrate(policy, schedule, [obs(3)], progress=False)
    bac.wrap(policy, schedule, replay=replay)
    assert [type(found) for found in stack_on(policy, "predict_action_chunk")] == kinds
    bac.wrap(policy, schedule, replay=replay, guard=guard)
    assert [type(found) for found in stack_on(policy, "predict_action_chunk")] == [GuardInterceptor, *kinds]


def test_without_a_schedule_blocks_are_left_alone():
    policy = bac.wrap(TinyTransformerPolicy())
    assert [(type(owner), attribute) for owner, attribute, _ in interceptors(policy)] == [
        (TinyTransformerPolicy, "predict_action_chunk")
    ]


def test_with_a_schedule_every_block_is_intercepted_once():
    policy = TinyTransformerPolicy()
    blocks = {(id(block.owner), block.attribute) for block in find_host(policy).blocks}
    bac.wrap(policy, sweep(policy, (0, 3), 7), replay=False)
    found = [(id(owner), attribute) for owner, attribute, _ in interceptors(policy) if owner is not policy]
    assert len(found) == 6 and set(found) == blocks


# What is refused


def test_a_schedule_for_other_blocks_is_refused_and_the_policy_is_left_alone():
    policy = TinyTransformerPolicy()
    before = [dict(vars(module)) for module in policy.modules()]
    with pytest.raises(ScheduleError, match=r"1 unknown \(tick0\) and lacks 6 \(decoder"):
        bac.wrap(policy, bac.Schedule(7, {"tick0": (0,)}))
    assert [dict(vars(module)) for module in policy.modules()] == before


def test_a_mismatch_names_each_difference_and_strict_false_accepts_it():
    policy = TinyTransformerPolicy()
    names = sweep(policy, (0,), 7).block_names
    fingerprint = Fingerprint(policy="a.Policy", block_names=names, num_steps=7, dtype="bfloat16")
    schedule = bac.Schedule(7, dict.fromkeys(names, (0, 3)), fingerprint)
    with pytest.raises(MismatchError) as caught:
        bac.wrap(policy, schedule)
    assert "policy: the schedule has a.Policy, the policy has tests.bac.models.TinyTransformerPolicy" in str(
        caught.value
    )
    assert "dtype: the schedule has bfloat16, the policy has float32" in str(caught.value)
    assert "strict=False" in str(caught.value)
    bac.wrap(policy, schedule, strict=False)


def test_a_refused_schedule_leaves_the_one_in_place():
    policy = wrapped((0, 2))
    with pytest.raises(ScheduleError):
        bac.wrap(policy, bac.Schedule(4, {"other": (0,)}), blocks=policy.blocks())
    assert policy.predict_action_chunk(ONE).item() == 1 + 1 + 2 + 2


def test_something_that_is_no_schedule_is_refused():
    with pytest.raises(
        ScheduleError, match=r"must be a bac\.Denoising or a bac\.Schedule, got str; for a file: bac\.load\(path\)"
    ):
        bac.wrap(TickPolicy(), "bac.json")


@pytest.mark.parametrize("what", [ONE_UPDATE, FirstBlock(4, 0.1), None], ids=["schedule", "rule", "nothing"])
def test_a_block_that_only_describes_is_refused_before_anything_is_patched(what):
    policy = wrapped((0, 2))
    before = [dict(vars(module)) for module in policy.modules()]
    with pytest.raises(UnsupportedPolicyError, match="tick0: this block has no owner"):
        bac.wrap(policy, what, blocks=[bac.Block("tick0", "feed_forward", 0)])
    assert [dict(vars(module)) for module in policy.modules()] == before
    assert policy.predict_action_chunk(ONE).item() == 1 + 1 + 2 + 2


def test_a_block_whose_method_does_not_exist_is_refused_before_anything_is_patched():
    policy = TickPolicy(num_blocks=2)
    good, bad = policy.blocks()
    bad = bac.Block("tick1", bad.kind, 1, bad.owner, "_ff_block")
    before = [dict(vars(module)) for module in policy.modules()]
    with pytest.raises(UnsupportedPolicyError, match="tick1: Tick has no method '_ff_block'"):
        bac.wrap(policy, bac.Schedule(4, {"tick0": (0,), "tick1": (0,)}), blocks=[good, bad])
    assert [dict(vars(module)) for module in policy.modules()] == before
