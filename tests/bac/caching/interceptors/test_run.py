"""A denoising run: what is stored in it, who takes part in it, and what makes reuse unsafe."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch

import bac
from bac.caching.interceptors.cached import CachedBlock
from bac.caching.interceptors.run import DenoisingRun
from bac.errors import RunError
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


def test_tuples_stay_tuples():
    policy = TickPolicy(num_steps=2)
    policy.ticks[0].forward = lambda x: (x + 1, None)
    policy.predict_action_chunk = lambda batch: [policy.ticks[0](batch["obs"]) for _ in range(2)]
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0,)}), blocks=policy.blocks())
    assert policy.predict_action_chunk(ONE) == [(torch.ones(1, 1), None)] * 2


def test_contexts_have_features_of_their_own():
    run = DenoisingRun(["a"], num_steps=2, num_contexts=2)
    block = CachedBlock(run, 0, [True, False])
    block.original = lambda x: 10 * x
    run.begin()
    cond, uncond = torch.ones(1), -torch.ones(1)
    values = [block(x).item() for x in (cond, uncond, cond, uncond)]
    run.check_complete()
    assert values == [10, -10, 10, -10]


def test_a_host_that_writes_into_what_it_is_given_cannot_spoil_the_cache():
    run = DenoisingRun(["a"], num_steps=3)
    block = CachedBlock(run, 0, [True, False, False], in_place=True)
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
    run = DenoisingRun(["a"], num_steps=2)
    block = CachedBlock(run, 0, [True, False])
    block.original = lambda x: x * 2
    run.begin()
    with torch.inference_mode():
        block(torch.ones(1))
    weight = torch.ones(1, requires_grad=True)
    (block(torch.ones(1)) * weight).backward()
    assert weight.grad.item() == 2
