"""What changes under a plan is noticed: weights, modules, dtype, mode, the sampler's settings."""

from __future__ import annotations

import copy

import pytest
import torch

from bac.errors import RunError
from tests.bac.models import obs
from tests.bac.plan.runs import STEPS, pair, predict


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
