"""Replays equal what the interceptors do; which arguments get a plan; what cannot be replayed."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bac
import bac.plan
from bac.errors import RunError, ScheduleError
from bac.plan.executor import CAPACITY, Replayer
from bac.plan.replay import replay_named
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep
from tests.bac.plan.runs import FIRST, STEPS, Counting, NoisyPolicy, pair, predict


@pytest.fixture(scope="module")
def pairs():
    return pair()


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_replay_is_bit_equal_to_the_interpreter(pairs, batch_size):
    interpreted, replayed = pairs
    for seed in range(3):
        assert torch.equal(predict(replayed, batch_size, seed), predict(interpreted, batch_size, seed))
    assert bac.plan.plans(replayed)[-1].max_error == 0


def test_a_replay_leaves_the_generator_where_the_interpreter_does(pairs):
    after = []
    for policy in pairs:
        predict(policy, seed=1)
        predict(policy, seed=2)
        after.append(torch.rand(1).item())
    assert after[0] == after[1]


def random_schedule(policy, seed):
    """Every block updates at some 40 % of its steps; which ones is up to the seed."""
    rng = np.random.default_rng(seed)
    names = [block.name for block in bac.adapters.find_host(policy).blocks]
    steps = {name: np.flatnonzero(rng.random(STEPS - 1) < 0.4) + 1 for name in names}
    return bac.Schedule(STEPS, {name: (0, *later) for name, later in steps.items()})


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_random_schedules_replay_bit_equal(seed):
    interpreted, replayed = pair(num_layers=2)
    schedule = random_schedule(interpreted, seed)
    bac.wrap(interpreted, schedule, replay=False)
    bac.wrap(replayed, schedule, replay=FIRST)
    for call in range(2):
        assert torch.equal(predict(replayed, seed=call), predict(interpreted, seed=call))
    assert len(bac.plan.plans(replayed)) == 1


@pytest.mark.slow
@settings(max_examples=5)
@given(st.integers(0, 10_000))
def test_random_schedules_stay_close_when_reassociated(seed):
    interpreted, replayed = pair(num_layers=2)
    schedule = random_schedule(interpreted, seed)
    bac.wrap(interpreted, schedule, replay=False)
    bac.wrap(replayed, schedule, replay=bac.Replay(exact=False, record="first"))
    for call in range(2):
        expected = predict(interpreted, seed=call)
        error = (predict(replayed, seed=call) - expected).abs().max() / expected.abs().max()
        assert error <= 1e-5


def test_the_dense_policy_replays_too():
    policy = TinyTransformerPolicy(num_steps=STEPS)
    dense = [predict(policy, seed=seed) for seed in range(3)]
    bac.wrap(policy, replay=FIRST)
    assert all(torch.equal(predict(policy, seed=seed), dense[seed]) for seed in range(3))
    assert len(bac.plan.plans(policy)) == 1


def test_no_block_is_called_in_a_replay_and_nothing_is_read_by_python(pairs):
    _, replayed = pairs
    predict(replayed)
    batch = obs(2)
    with torch.inference_mode(), Counting() as counting:
        replayed.predict_action_chunk(batch)
    assert counting.num_operations == bac.plan.plans(replayed)[-1].num_operations
    assert not {"_local_scalar_dense", "item", "is_nonzero"} & set(counting.by_name)


def test_results_are_ordinary_tensors_outside_inference_mode(pairs):
    _, replayed = pairs
    for call in range(3):
        assert not predict(replayed, batch_size=3, seed=call).is_inference()


def test_generators_are_arguments_and_a_list_of_them_too():
    batch = {"obs": torch.ones(1, 2, 4)}
    outputs = []
    for replay in (False, FIRST):
        torch.manual_seed(0)
        policy = NoisyPolicy()
        bac.wrap(policy, sweep(policy, (0, 2), 3), replay=replay)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            outputs.append([policy.predict_action_chunk(batch, generator=generator) for _ in range(3)])
        outputs[-1].append(generator.get_state())
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


def test_each_shape_has_its_plan_and_the_number_of_plans_is_bounded():
    policy = pair()[1]
    for batch_size in range(1, CAPACITY + 2):
        predict(policy, batch_size)
    assert len(bac.plan.plans(policy)) == CAPACITY


def test_by_default_a_plan_is_recorded_at_the_second_sight():
    interpreted, policy = pair()
    bac.wrap(policy, sweep(policy, (0, 3), STEPS))
    counts = []
    for _ in range(3):
        assert torch.equal(predict(policy), predict(interpreted))
        counts.append(len(bac.plan.plans(policy)))
    assert counts == [0, 1, 1]


def test_what_is_recorded_ahead_makes_plans_on_demand_only():
    interpreted, policy = pair(replay=bac.Replay(record="ahead"))
    predict(policy)
    assert bac.plan.plans(policy) == ()
    with torch.no_grad():
        plan = bac.plan.record(policy, obs(2))
    assert bac.plan.plans(policy) == (plan,)
    assert torch.equal(predict(policy), predict(interpreted))


def test_arguments_that_keep_changing_are_not_recorded_for_ever():
    policy = NoisyPolicy(num_steps=1)
    bac.wrap(policy, sweep(policy, (0,), 1), replay=FIRST)
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="recordings for"):
        for size in range(1, 2 * CAPACITY + 3):
            policy.predict_action_chunk({"obs": torch.ones(size, 2, 4)})


def test_a_run_that_cannot_be_replayed_is_interpreted_with_one_warning():
    policy = TickPolicy(num_steps=2)
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0, 1)}), blocks=policy.blocks(), replay=FIRST)
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match="interpreted: its control flow depends on"):
            assert policy.predict_action_chunk({"obs": torch.zeros(1, 1)}).item() == 1 + 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            policy.predict_action_chunk({"obs": torch.zeros(1, 1)})
        with pytest.raises(RunError, match="cannot be replayed: its control flow"), pytest.warns(RuntimeWarning):
            bac.plan.record(policy, {"obs": torch.zeros(1, 1)})


def test_a_failing_run_fails_as_it_did_and_leaves_the_policy_usable():
    interpreted, replayed = pair()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="mat1 and mat2"), torch.no_grad():
            replayed.predict_action_chunk({"obs": torch.zeros(2, 2, 5)})
    assert torch.equal(predict(replayed), predict(interpreted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": "skip"}, 'record: must be "second", "first" or "ahead", got \'skip\''),
        ({"compile": True}, "compile: a compiled plan rounds differently; allow that with exact=False"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ScheduleError, match=message):
        bac.Replay(**options)


def test_executors_by_name_are_the_three_ways_to_replay():
    named = [replay_named(name) for name in ("interpret", "auto", "replay")]
    assert named == [False, True, bac.Replay(record="first")]
    with pytest.raises(ScheduleError, match="executor: must be interpret, auto or replay, got 'fast'"):
        replay_named("fast")


def test_a_plan_tells_what_was_done():
    policy = pair()[1]
    predict(policy)
    text = str(bac.plan.plans(policy)[0])
    assert text.startswith("Plan: [2, 2, 3] float32 on cpu, exact\n  recorded")
    assert "drop dead code" in text
    assert "bit-equal to the interceptor on two runs" in text
    assert bac.plan.plans(policy)[0].constant_bytes < 100e6


def test_checking_that_nothing_changed_takes_no_time():
    policy = pair()[1]
    predict(policy)
    (replayer,) = [i for _, _, i in bac.caching.interceptors.patch.interceptors(policy) if isinstance(i, Replayer)]
    with Counting() as counting:
        assert replayer.plans[0].staleness.difference() is None
    assert counting.by_name == {}


FORK = """
import os, threading
import torch, bac, bac.plan
from bac.plan.executor import Replayer
from tests.bac.models import TinyTransformerPolicy, obs

policy = bac.wrap(TinyTransformerPolicy(), replay=bac.Replay(record="first"))
recording, go_on, record = threading.Event(), threading.Event(), Replayer._record

def slow(self, *args):
    recording.set(), go_on.wait(60)
    return record(self, *args)

Replayer._record = slow
thread = threading.Thread(target=torch.no_grad()(policy.predict_action_chunk), args=(obs(),))
thread.start()
assert recording.wait(60)
torch.set_grad_enabled(False)
Replayer._record = record
child = os.fork()
if not child:
    policy.predict_action_chunk(obs()), policy.predict_action_chunk(obs())
    os._exit(len(bac.plan.plans(policy)))
plans = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set(), thread.join()
print(plans, len(bac.plan.plans(policy)))
"""


@pytest.mark.slow
def test_a_process_forked_while_a_plan_is_recorded_records_its_own():
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_pytorchs_own_layers_with_an_even_number_of_heads_are_replayed():
    """Their self-attention is then one fused operator, which returns a tensor and nothing."""
    policy, other = TinyTransformerPolicy(), TinyTransformerPolicy()
    for one in (policy, other):
        layer = torch.nn.TransformerDecoderLayer(12, 2, 20, batch_first=True, norm_first=True)
        one.decoder = torch.nn.TransformerDecoder(layer, 2)
        one.eval()
    other.load_state_dict(policy.state_dict())
    bac.wrap(policy, replay=bac.Replay(record="first"))
    with torch.no_grad():
        for seed in range(3):
            chunks = []
            for one in (policy, other):
                torch.manual_seed(seed)
                chunks.append(one.predict_action_chunk(obs(seed=seed)))
            assert torch.equal(*chunks)
    assert bac.describe(policy).num_replays == 2
