"""What samplers return besides one tensor."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from typing import Any

import pytest
import torch
from torch import nn

import bac
import bac.plan
from bac.caching.block import BlockKind
from bac.plan.refusal import Refusal
from bac.plan.returned import Returned, distance
from tests.bac.plan.runs import FIRST

Pair = namedtuple("Pair", ["actions", "latents"])
X = torch.tensor([[1.0, 2.0]])

SHAPES: dict[str, Any] = {
    "dict": lambda x: {"actions": 2 * x, "name": "push", "steps": 3},
    "tuple": lambda x: (2 * x, None, x + 1),
    "list in a dict": lambda x: {"all": [2 * x, x + 1]},
    "namedtuple": lambda x: Pair(2 * x, x + 1),
    "ordered": lambda x: OrderedDict(latents=x + 1, actions=2 * x),
    "user dict": lambda x: UserDict(actions=2 * x),
    "one twice": lambda x: (lambda y: (y, y.view(2)))(2 * x),
}


class Sampler(nn.Module):
    def __init__(self, returns: Any) -> None:
        super().__init__()
        self.block, self.returns = nn.Identity(), returns
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: Any) -> Any:
        return self.returns(self.block(batch["obs"]))


def wrapped(returns: Any) -> Sampler:
    policy = Sampler(returns)
    return bac.wrap(policy, blocks=[bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)], replay=FIRST)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_replay_returns_the_same_in_the_same_containers(kind):
    policy = wrapped(SHAPES[kind])
    for number in (1.0, 4.0, -2.0):
        with torch.no_grad():
            found, expected = policy.predict_action_chunk({"obs": number * X}), SHAPES[kind](number * X)
        assert type(found) is type(expected) and distance(expected, found) == 0.0
    assert bac.describe(policy).num_replays == 2


def test_an_argument_that_is_handed_back_stays_the_same_object():
    policy = wrapped(lambda x: {"actions": 2 * x, "seen": x})
    for _ in range(3):
        seen = X.clone()
        with torch.no_grad():
            assert policy.predict_action_chunk({"obs": seen})["seen"] is seen
    assert bac.describe(policy).num_replays == 2


@pytest.mark.filterwarnings("ignore:.*cannot be replayed")
@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (lambda x: {"actions": 2 * x, "policy": object()}, "the sampler returns object, which a plan cannot make"),
        (lambda x: {"steps": 3}, "the sampler returns dict without a tensor of its own"),
    ],
)
def test_what_a_plan_cannot_make_is_interpreted_with_the_reason(returns, reason):
    policy = wrapped(returns)
    with torch.no_grad():
        policy.predict_action_chunk({"obs": X})
    assert bac.describe(policy).refusals == (reason,)


def test_a_number_beside_the_tensors_that_changes_from_run_to_run_is_refused():
    one, other = Returned.of({"a": X, "n": 1}, []), Returned.of({"a": X, "n": 2}, [])
    assert one.key != other.key
    with pytest.raises(Refusal, match="without a tensor"):
        Returned.of({"n": 1}, [])


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ([X], [X], 0.0),
        ([X], [X + 1], 0.5),
        ([X, X], [X, X.T], float("inf")),
        ([X], [X * float("nan")], float("inf")),
        ([X, X], [X * float("nan"), X], float("inf")),
        ([X.long()], [X.long() + 1], float("inf")),
        ([X, "a"], [X, "b"], float("inf")),
        ([X], {"a": X}, float("inf")),
    ],
)
def test_a_distance_is_relative_to_the_largest_number_and_infinite_where_nothing_rounds(expected, found, error):
    assert distance(expected, found) == error
