"""A replayed policy beside gradients, hooks, recorders, copies and threads."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import threading

import pytest
import torch

import bac
import bac.plan
from bac.errors import RunError
from tests.bac.models import obs, sweep
from tests.bac.plan.runs import FIRST, STEPS, NoisyPolicy, pair, predict


def test_with_gradients_the_run_is_interpreted():
    _, replayed = pair()
    predict(replayed)
    torch.manual_seed(0)
    with torch.enable_grad():
        assert replayed.predict_action_chunk(obs(2)).requires_grad


class Detached(NoisyPolicy):
    predict_action_chunk = torch.no_grad()(NoisyPolicy.predict_action_chunk)


def test_a_sampler_that_turns_gradients_off_itself_is_replayed_with_gradients_on():
    policy = bac.wrap(Detached(), replay=FIRST)
    for _ in range(3):
        with torch.enable_grad():
            policy.predict_action_chunk({"obs": torch.ones(2, 3, 4)})
    assert len(bac.plan.plans(policy)) == 1


def test_recording_features_sees_a_replayed_policy():
    interpreted, replayed = pair()
    predict(replayed)
    features = [bac.recording.record_features(policy, obs(2)) for policy in (interpreted, replayed)]
    assert all(torch.equal(features[0][name], features[1][name]) for name in features[0])


def test_forward_hooks_are_called():
    _, replayed = pair()
    predict(replayed)
    calls = []
    handle = replayed.head.register_forward_hook(lambda *_: calls.append(1))
    predict(replayed)
    handle.remove()
    predict(replayed)
    assert len(calls) == STEPS


def test_a_deep_copy_has_plans_of_its_own():
    interpreted, replayed = pair()
    expected = predict(replayed)
    twin = copy.deepcopy(replayed)
    assert bac.plan.plans(twin) == ()
    with torch.no_grad():
        replayed.head.weight.mul_(2)
    for _ in range(2):
        assert torch.equal(predict(twin), expected)
    assert torch.equal(predict(interpreted), expected)


def test_pickling_names_unwrap():
    with pytest.raises(bac.BacError, match=r"bac\.unwrap\(policy\)"):
        pickle.dumps(pair()[1])


def test_unwrap_takes_the_replayer_off():
    _, policy = pair()
    predict(policy)
    bac.unwrap(policy)
    assert "predict_action_chunk" not in vars(policy)
    with pytest.raises(RunError, match="not wrapped for replay"):
        bac.plan.plans(policy)


def test_two_threads_replay_the_same_plan():
    interpreted, replayed = pair()
    noise = {}
    expected = {}
    batches = [obs(2, seed) for seed in range(2)]
    policies = []
    for policy in (interpreted, replayed):
        torch.manual_seed(0)
        twin = NoisyPolicy()
        bac.wrap(twin, sweep(twin, (0, 2), 3), replay=FIRST if policy is replayed else False)
        policies.append(twin)
    batches = [{"obs": torch.full((1, 2, 4), float(i))} for i in range(2)]

    def run(policy, index, into):
        with torch.no_grad():
            for _ in range(20):
                generator = torch.Generator().manual_seed(index)
                into[index] = policy.predict_action_chunk(batches[index], generator=generator)

    run(policies[1], 0, {})
    threads = [threading.Thread(target=run, args=(policies[1], index, noise)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        run(policies[0], index, expected)
        assert torch.equal(noise[index], expected[index])


def ones(policy):
    with torch.no_grad():
        return policy.predict_action_chunk({"obs": torch.ones(2, 3, 4)})


class Talkative(NoisyPolicy):
    """Logs in every chunk, as many policies do, so that the code of Python's `logging` is part of the run."""

    def predict_action_chunk(self, batch):
        logging.getLogger("tests.talkative").warning("a chunk")
        return super().predict_action_chunk(batch)


def test_a_run_that_logs_replays_though_other_threads_come_and_go():
    policy = bac.wrap(Talkative(), replay=FIRST)
    ones(policy)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    ones(policy)
    done.set()
    thread.join()
    ones(policy)
    assert bac.describe(policy).num_replays == 2


def test_a_thread_that_a_policy_holds_may_change():
    policy = bac.wrap(NoisyPolicy(), replay=FIRST)
    policy.worker = threading.Thread(target=print)
    ones(policy)
    policy.worker.name = "another name"
    ones(policy)
    assert bac.describe(policy).num_replays == 1


collections = 0


def count_collection(*_):
    global collections
    collections += 1


def test_what_python_calls_when_it_collects_garbage_is_no_part_of_a_run():
    """A tool that counts collections would otherwise make every plan stale."""
    policy, before = bac.wrap(NoisyPolicy(), replay=FIRST), gc.get_threshold()
    gc.callbacks.append(count_collection)
    gc.set_threshold(1)
    try:
        for _ in range(3):
            ones(policy)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(count_collection)
    assert collections > 0
    assert bac.describe(policy).num_replays == 2
