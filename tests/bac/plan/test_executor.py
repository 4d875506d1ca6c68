from __future__ import annotations

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bac
import bac.plan
from bac.errors import RunError, ScheduleError
from bac.plan.executor import CAPACITY, Replayer
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep
from tests.bac.plan.runs import Counting, NoisyPolicy

STEPS = 7


def predict(policy, batch_size=2, seed=0, **options):
    torch.manual_seed(seed)
    with torch.no_grad():
        return policy.predict_action_chunk(obs(batch_size, seed), **options)


def pair(steps=(0, 3), **options):
    """The same policy twice, interpreted and replayed."""
    made = []
    for executor in ("interpret", "replay"):
        torch.manual_seed(1)
        policy = TinyTransformerPolicy(num_steps=STEPS)
        settings = options if executor == "replay" else {}
        made.append(bac.wrap(policy, sweep(policy, steps, STEPS), executor=executor, **settings))
    return made


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


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_random_schedules_replay_bit_equal(seed):
    rng = np.random.default_rng(seed)
    interpreted, replayed = pair()
    names = [block.name for block in bac.adapters.find_host(interpreted).blocks]
    updates = {name: (0, *(int(k) for k in np.flatnonzero(rng.random(STEPS - 1) < 0.4) + 1)) for name in names}
    schedule = bac.Schedule(STEPS, updates)
    bac.wrap(interpreted, schedule, executor="interpret")
    bac.wrap(replayed, schedule, executor="replay")
    for call in range(2):
        assert torch.equal(predict(replayed, seed=call), predict(interpreted, seed=call))
    assert len(bac.plan.plans(replayed)) == 1


@pytest.mark.slow
@settings(max_examples=5)
@given(st.integers(0, 10_000))
def test_random_schedules_stay_close_when_reassociated(seed):
    rng = np.random.default_rng(seed)
    interpreted, replayed = pair()
    names = [block.name for block in bac.adapters.find_host(interpreted).blocks]
    updates = {name: (0, *(int(k) for k in np.flatnonzero(rng.random(STEPS - 1) < 0.4) + 1)) for name in names}
    bac.wrap(interpreted, bac.Schedule(STEPS, updates), executor="interpret")
    bac.wrap(replayed, bac.Schedule(STEPS, updates), executor="replay", exact=False)
    for call in range(2):
        expected = predict(interpreted, seed=call)
        error = (predict(replayed, seed=call) - expected).abs().max() / expected.abs().max()
        assert error <= 1e-5


def test_the_dense_policy_replays_too():
    policy = TinyTransformerPolicy(num_steps=STEPS)
    dense = [predict(policy, seed=seed) for seed in range(3)]
    bac.wrap(policy, None, executor="replay")
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
    for executor in ("interpret", "replay"):
        torch.manual_seed(0)
        policy = NoisyPolicy()
        bac.wrap(policy, sweep(policy, (0, 2), 3), executor=executor)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            outputs.append([policy.predict_action_chunk(batch, generator=generator) for _ in range(3)])
        outputs[-1].append(generator.get_state())
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


# keys


def test_each_shape_has_its_plan_and_the_number_of_plans_is_bounded():
    policy = pair()[1]
    for batch_size in range(1, CAPACITY + 2):
        predict(policy, batch_size)
    assert len(bac.plan.plans(policy)) == CAPACITY


def test_auto_records_at_the_second_sight():
    interpreted, policy = pair()
    bac.wrap(policy, sweep(policy, (0, 3), STEPS))
    counts = []
    for _ in range(3):
        assert torch.equal(predict(policy), predict(interpreted))
        counts.append(len(bac.plan.plans(policy)))
    assert counts == [0, 1, 1]


def test_unseen_interpret_makes_plans_on_demand_only():
    interpreted, policy = pair(unseen="interpret")
    predict(policy)
    assert bac.plan.plans(policy) == ()
    with torch.no_grad():
        plan = bac.plan.record(policy, obs(2))
    assert bac.plan.plans(policy) == (plan,)
    assert torch.equal(predict(policy), predict(interpreted))


def test_arguments_that_keep_changing_are_not_recorded_for_ever():
    policy = NoisyPolicy(num_steps=1)
    bac.wrap(policy, sweep(policy, (0,), 1), executor="replay")
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="recordings for"):
        for size in range(1, 2 * CAPACITY + 3):
            policy.predict_action_chunk({"obs": torch.ones(size, 2, 4)})


# what changes under a plan


def change_in_place(policy):
    with torch.no_grad():
        policy.head.weight.mul_(2)


def change_through_data(policy):
    policy.head.weight.data.mul_(2)


def swap_data(policy):
    policy.head.weight.data = policy.head.weight.data * 2


def load(policy):
    policy.load_state_dict({name: 2 * value for name, value in policy.state_dict().items()})


def replace_parameter(policy):
    policy.head.weight = torch.nn.Parameter(policy.head.weight.detach() * 2)


def replace_module(policy):
    policy.head = copy.deepcopy(policy.head)
    change_in_place(policy)


def to_double_and_back(policy):
    policy.double().float()
    change_through_data(policy)


@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        change_through_data,
        swap_data,
        load,
        replace_parameter,
        replace_module,
        to_double_and_back,
    ],
)
def test_changed_weights_are_noticed(change):
    interpreted, replayed = pair()
    predict(replayed)
    predict(replayed)
    for policy in (interpreted, replayed):
        change(policy)
    for seed in range(2):
        assert torch.equal(predict(replayed, seed=seed), predict(interpreted, seed=seed))


def test_another_dtype_is_another_plan():
    interpreted, replayed = pair()
    predict(replayed)
    for policy in (interpreted, replayed):
        policy.double()
        with torch.no_grad():
            outputs = []
            for _ in range(2):
                torch.manual_seed(0)
                torch.set_default_dtype(torch.float64)
                try:
                    outputs.append(policy.predict_action_chunk({"obs": obs(2)["obs"].double()}))
                finally:
                    torch.set_default_dtype(torch.float32)
        if policy is interpreted:
            expected = outputs[0]
    assert outputs[1].dtype == torch.float64
    assert torch.equal(outputs[1], expected)


def test_training_mode_is_refused_and_eval_mode_works_again():
    interpreted, replayed = pair()
    predict(replayed)
    replayed.train()
    with pytest.raises(RunError, match=r"policy\.eval\(\)"):
        predict(replayed)
    replayed.eval()
    assert torch.equal(predict(replayed), predict(interpreted))


def test_a_changed_setting_of_the_sampler_is_noticed():
    interpreted, replayed = pair()
    predict(replayed)
    replayed.num_steps = STEPS + 1
    with pytest.raises(RunError, match=f"the schedule is for {STEPS}"):
        predict(replayed)
    replayed.num_steps = STEPS
    assert torch.equal(predict(replayed), predict(interpreted))


# who else is there


def test_with_gradients_the_run_is_interpreted():
    _, replayed = pair()
    predict(replayed)
    torch.manual_seed(0)
    with torch.enable_grad():
        assert replayed.predict_action_chunk(obs(2)).requires_grad


class Detached(NoisyPolicy):
    predict_action_chunk = torch.no_grad()(NoisyPolicy.predict_action_chunk)


def test_a_sampler_that_turns_gradients_off_itself_is_replayed_with_gradients_on():
    policy = bac.wrap(Detached(), None, executor="replay")
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
    change_in_place(replayed)
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
        bac.wrap(twin, sweep(twin, (0, 2), 3), executor="replay" if policy is replayed else "interpret")
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


# what cannot be replayed


def test_a_run_that_cannot_be_replayed_is_interpreted_with_one_warning():
    policy = TickPolicy(num_steps=2)
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0, 1)}), blocks=policy.blocks(), executor="replay")
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


def test_bad_options_are_refused():
    policy = TinyTransformerPolicy(num_steps=STEPS)
    schedule = sweep(policy, (0,), STEPS)
    for options, message in (
        ({"executor": "fast"}, 'must be "auto", "interpret" or "replay"'),
        ({"unseen": "skip"}, 'must be "record" or "interpret"'),
    ):
        with pytest.raises(ScheduleError, match=message):
            bac.wrap(policy, schedule, **options)
    with pytest.raises(ScheduleError, match="which only replay speeds up"):
        bac.wrap(policy, None, executor="interpret")
    assert not list(bac.patch.interceptors(policy))


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
    (replayer,) = [i for _, _, i in bac.patch.interceptors(policy) if isinstance(i, Replayer)]
    with Counting() as counting:
        assert replayer.plans[0].guard.difference() is None
    assert counting.by_name == {}
