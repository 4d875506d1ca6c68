from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch

import bac
from bac.errors import MismatchError, RunError, ScheduleError, UnsupportedPolicyError
from bac.fingerprint import Fingerprint
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep

ONE = {"obs": torch.zeros(1, 1)}


def wrapped(steps: tuple[int, ...], num_steps: int = 4) -> TickPolicy:
    policy = TickPolicy(num_steps)
    return bac.wrap(policy, bac.Schedule(num_steps, {"tick0": steps}), blocks=policy.blocks())


def test_reuse_returns_the_stored_feature():
    policy = wrapped((0, 2))
    assert policy.predict_action_chunk(ONE).item() == 1 + 1 + 2 + 2
    assert policy.ticks[0].num_computed == 2


def test_nothing_outlives_an_action_chunk():
    policy = wrapped((0, 2))
    policy.predict_action_chunk(ONE)
    assert policy.predict_action_chunk(ONE).item() == 3 + 3 + 4 + 4


def test_wrap_twice_reconfigures():
    policy = wrapped((0, 2))
    bac.wrap(policy, bac.Schedule(4, {"tick0": (0,)}), blocks=policy.blocks())
    assert policy.predict_action_chunk(ONE).item() == 4 * 1


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


def test_tuples_stay_tuples():
    policy = TickPolicy(num_steps=2)
    policy.ticks[0].forward = lambda x: (x + 1, None)
    policy.predict_action_chunk = lambda batch: [policy.ticks[0](batch["obs"]) for _ in range(2)]
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0,)}), blocks=policy.blocks())
    assert policy.predict_action_chunk(ONE) == [(torch.ones(1, 1), None)] * 2


def test_contexts_have_features_of_their_own():
    run = bac.caching.interceptors.cached.DenoisingRun(["a"], num_steps=2, num_contexts=2)
    block = bac.caching.interceptors.cached.CachedBlock(run, 0, [True, False])
    block.original = lambda x: 10 * x
    run.begin()
    cond, uncond = torch.ones(1), -torch.ones(1)
    values = [block(x).item() for x in (cond, uncond, cond, uncond)]
    run.check_complete()
    assert values == [10, -10, 10, -10]


def test_a_host_that_writes_into_what_it_is_given_cannot_spoil_the_cache():
    run = bac.caching.interceptors.cached.DenoisingRun(["a"], num_steps=3)
    block = bac.caching.interceptors.cached.CachedBlock(run, 0, [True, False, False], in_place=True)
    block.original = lambda x: x + 1
    run.begin()
    assert [block(torch.zeros(1)).add_(5).item() for _ in range(3)] == [6, 6, 6]


def test_an_exception_in_a_run_passes_through_and_leaves_the_policy_usable():
    policy = wrapped((0, 2))
    with pytest.raises(KeyError):
        policy.predict_action_chunk({})
    assert policy.predict_action_chunk(ONE).item() == 1 + 1 + 2 + 2


def test_a_block_evaluated_too_often_or_too_seldom_is_named():
    policy = wrapped((0, 2))
    for made in (3, 5):
        policy.num_steps = made
        with pytest.raises(RunError, match=f"tick0: evaluated {made} times in a denoising run, the schedule is for 4"):
            policy.predict_action_chunk(ONE)


def test_a_shape_that_changes_within_a_run_is_refused():
    policy = TickPolicy(num_steps=2)
    policy.predict_action_chunk = lambda batch: [policy.ticks[0](torch.zeros(n, 1)) for n in (2, 3)]
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0,)}), blocks=policy.blocks())
    with pytest.raises(RunError, match=r"its input was .*\[2, 1\].* and is .*\[3, 1\].* at denoising step 1"):
        policy.predict_action_chunk(ONE)


def test_a_dtype_that_changes_within_a_run_is_refused():
    policy = TickPolicy(num_steps=2)
    policy.predict_action_chunk = lambda batch: [policy.ticks[0](torch.zeros(1, dtype=d)) for d in (torch.half, None)]
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0,)}), blocks=policy.blocks())
    with pytest.raises(RunError, match=r"torch\.float16.*torch\.float32"):
        policy.predict_action_chunk(ONE)


def test_a_second_thread_in_a_run_is_refused():
    policy = wrapped((0, 2))
    entered, leave = threading.Event(), threading.Event()

    interceptor = vars(policy.ticks[0])["forward"]
    compute = interceptor.original
    interceptor.original = lambda x: (entered.set(), leave.wait(10), compute(x))[2]
    first = threading.Thread(target=policy.predict_action_chunk, args=(ONE,))
    first.start()
    assert entered.wait(10)
    with pytest.raises(RunError, match=r"going on in another thread.*copy\.deepcopy\(policy\)"):
        policy.predict_action_chunk(ONE)
    with pytest.raises(RunError, match="evaluated by another thread"):
        policy.ticks[0](ONE["obs"])
    leave.set()
    first.join()
    assert policy.predict_action_chunk(ONE).item() == 3 + 3 + 4 + 4


def test_deep_copies_run_in_two_threads_at_once():
    policies = [wrapped((0, 2)), None]
    policies[1] = copy.deepcopy(policies[0])
    results = [None, None]

    def predict(index):
        for _ in range(50):
            policies[index].reset()
            results[index] = policies[index].predict_action_chunk(ONE).item()

    threads = [threading.Thread(target=predict, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [6, 6]


def test_a_sampler_entered_within_a_run_is_refused():
    policy = TickPolicy()
    policy.ticks[0].register_forward_pre_hook(lambda module, inputs: policy.predict_action_chunk(ONE))
    bac.wrap(policy, bac.Schedule(4, {"tick0": (0,)}), blocks=policy.blocks())
    with pytest.raises(RunError, match="going on in this thread"):
        policy.predict_action_chunk(ONE)


def test_outside_a_run_blocks_are_computed_with_one_warning():
    policy = wrapped((0,))
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="tick0: evaluated outside a denoising run"):
        assert [policy.ticks[0](ONE["obs"]).item() for _ in range(3)] == [1, 2, 3]


def test_a_training_step_through_wrapped_blocks_does_not_warn():
    policy = wrapped((0,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy.ticks[0](ONE["obs"]).item() == 1


def test_gradients_flow_through_updates_and_stop_at_reuse():
    torch.manual_seed(0)
    policy = TinyTransformerPolicy(num_steps=3)
    bac.wrap(policy, sweep(policy, (0,), 3))
    batch = obs(2)
    batch["obs"].requires_grad_()
    policy.predict_action_chunk(batch).sum().backward()
    assert batch["obs"].grad.abs().sum() > 0


def test_features_stored_under_inference_mode_are_usable_under_grad():
    run = bac.caching.interceptors.cached.DenoisingRun(["a"], num_steps=2)
    block = bac.caching.interceptors.cached.CachedBlock(run, 0, [True, False])
    block.original = lambda x: x * 2
    run.begin()
    with torch.inference_mode():
        block(torch.ones(1))
    weight = torch.ones(1, requires_grad=True)
    (block(torch.ones(1)) * weight).backward()
    assert weight.grad.item() == 2


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
    with pytest.raises(ScheduleError, match=r"must be a bac\.Schedule, got str; for a file: bac\.Schedule\.load"):
        bac.wrap(TickPolicy(), "bac.json")


def test_a_block_that_only_describes_is_not_patched():
    with pytest.raises(UnsupportedPolicyError, match="tick0: this block has no owner"):
        bac.wrap(
            TickPolicy(),
            bac.Schedule(4, {"tick0": (0,)}),
            blocks=[bac.Block("tick0", bac.BlockKind.FEED_FORWARD, 0)],
        )


def test_a_block_whose_method_does_not_exist_is_refused_before_anything_is_patched():
    policy = TickPolicy(num_blocks=2)
    good, bad = policy.blocks()
    bad = bac.Block("tick1", bad.kind, 1, bad.owner, "_ff_block")
    before = [dict(vars(module)) for module in policy.modules()]
    with pytest.raises(UnsupportedPolicyError, match="tick1: Tick has no method '_ff_block'"):
        bac.wrap(policy, bac.Schedule(4, {"tick0": (0,), "tick1": (0,)}), blocks=[good, bad])
    assert [dict(vars(module)) for module in policy.modules()] == before
