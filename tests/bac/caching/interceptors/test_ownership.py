"""A policy may add its residuals in place; what is stored stays as it was stored."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import bac
import bac.plan
from bac.caching.block import BlockKind
from bac.caching.estimators import Hold, Residual, Taylor
from bac.caching.interceptors.nested import map_tensors
from bac.caching.interceptors.ownership import Ownership
from bac.errors import CalibrationError
from tests.bac.models import Tick, TinyTransformerPolicy, obs, sweep

STEPS = 7
FIRST = bac.Replay(record="first")


class Pair(NamedTuple):
    first: Tensor
    second: Any


class InPlace(nn.TransformerDecoderLayer):
    """PyTorch's layer, with residuals added in place."""

    def forward(self, tgt: Tensor, memory: Tensor, *_, **__) -> Tensor:
        h = self._sa_block(self.norm1(tgt), None, None)
        h += tgt
        h += self._mha_block(self.norm2(h), memory, None, None)
        g = self._ff_block(self.norm3(h))
        g += h
        return g


class Ordinary(InPlace):
    """The same sums, out of place."""

    def forward(self, tgt: Tensor, memory: Tensor, *_, **__) -> Tensor:
        h = self._sa_block(self.norm1(tgt), None, None) + tgt
        h = h + self._mha_block(self.norm2(h), memory, None, None)
        return self._ff_block(self.norm3(h)) + h


def made_of(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    policy = TinyTransformerPolicy(num_steps=STEPS)
    for layer in policy.decoder.layers:
        layer.__class__ = kind
    return policy


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("replay", [False, FIRST])
@pytest.mark.parametrize("estimator", [Hold(), Taylor(order=1), Residual()])
def test_layers_that_add_in_place_give_what_layers_out_of_place_give(mode, replay, estimator):
    chunks = []
    for kind in (InPlace, Ordinary):
        policy = made_of(kind)
        denoising = bac.Denoising(schedule=sweep(policy, (0, 3), STEPS), estimator=estimator)
        bac.wrap(policy, denoising, replay=replay if kind is InPlace else False)
        torch.manual_seed(0)
        with mode():
            chunks.append([policy.predict_action_chunk(obs(2, seed)) for seed in range(4)])
    assert all(torch.equal(one, other) for one, other in zip(*chunks, strict=True))


class Stream(nn.Module):
    """``h = branch(x); h += x; x = h``, four times from zero. The branch returns how often it was computed."""

    def __init__(self, *, in_place: bool = True) -> None:
        super().__init__()
        self.branch, self.in_place = Tick(), in_place
        self.eval()

    def reset(self) -> None:
        self.branch.num_computed = 0

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        x = torch.zeros_like(batch["obs"])
        for _ in range(4):
            h = self.branch(x)
            if self.in_place:
                h += x
            else:
                h = h + x
            x = h
        return x


def stream(**options) -> Stream:
    policy = Stream(**options)
    block = bac.Block("branch", BlockKind.FEED_FORWARD, 0, policy.branch)
    return bac.wrap(policy, bac.Schedule(4, {"branch": (0,)}), blocks=[block], replay=False)


def chunk(policy: nn.Module, mode=torch.no_grad) -> float:
    with mode():
        return policy.predict_action_chunk({"obs": torch.zeros(1, 1)}).item()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_block_named_by_hand_may_be_written_to(mode):
    policy = stream()
    assert [chunk(policy, mode) for _ in range(3)] == [4 * 1, 4 * 2, 4 * 3]


class Named(nn.Module):
    """A branch that returns its tensor in a dictionary, or in something else."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.tick, self.kind = Tick(), kind

    def forward(self, x: Tensor):
        return self.kind(h=self.tick(x))


class Picking(nn.Module):
    """The tensor of a `Named`."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.named = Named(kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.named(x)["h"]


class OfNames(Stream):
    def __init__(self, kind) -> None:
        super().__init__()
        self.branch = Picking(kind)
        self.eval()


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_block_that_returns_a_dictionary_may_be_written_to(kind):
    policy = OfNames(kind)
    block = bac.Block("branch", BlockKind.FEED_FORWARD, 0, policy.branch.named)
    bac.wrap(policy, bac.Schedule(4, {"branch": (0,)}), blocks=[block], replay=False)
    assert [chunk(policy) for _ in range(3)] == [4 * 1, 4 * 2, 4 * 3]


def test_a_block_whose_change_cannot_be_measured_is_refused_in_a_sentence():
    policy = OfNames(dict)
    block = bac.Block("branch", BlockKind.FEED_FORWARD, 0, policy.branch.named)
    with pytest.raises(CalibrationError, match="a block returns dict, whose change cannot be measured"):
        bac.calibrate(policy, [{"obs": torch.zeros(2, 1)}], blocks=[block], progress=False)


def test_a_named_tuple_stays_one():
    made = map_tensors(torch.neg, Pair(torch.ones(1), [torch.ones(1), None]))
    assert type(made) is Pair and (made.first.item(), made.second[0].item(), made.second[1]) == (-1.0, -1.0, None)


def test_a_policy_that_begins_to_write_has_the_spoilt_feature_computed_anew_once():
    policy = stream(in_place=False)
    assert [chunk(policy), chunk(policy)] == [4 * 1, 4 * 2]
    policy.in_place = True
    assert chunk(policy) == 3 + 3 * 4  # step 0 is spoilt, step 1 computes, steps 2 and 3 reuse it
    assert [chunk(policy), chunk(policy)] == [4 * 5, 4 * 6]


def test_features_are_copied_until_a_complete_run_shows_that_nobody_writes():
    ownership, feature = Ownership(), torch.zeros(2)
    ownership.begin()
    ownership.lend("block", feature)
    assert ownership.copies and ownership.is_intact("block")
    ownership.settle()
    assert not ownership.copies


def test_one_write_brings_the_copies_back_for_good():
    ownership, feature = Ownership(), torch.zeros(2)
    for _ in range(2):
        ownership.lend("block", feature)
        ownership.settle()
    ownership.lend("block", (feature, [feature]))
    feature.add_(1)
    assert not ownership.is_intact("block")
    ownership.begin()
    ownership.lend("block", feature)
    ownership.settle()
    assert ownership.copies


def test_a_write_into_a_copy_leaves_the_feature_intact():
    ownership, copy = Ownership(), torch.zeros(2)
    ownership.lend("block", copy)
    copy.add_(1)
    assert ownership.is_intact("block")
    ownership.settle()
    assert ownership.copies


def test_inference_tensors_count_no_writes_so_they_are_copied():
    ownership = Ownership()
    with torch.inference_mode():
        ownership.lend("block", torch.zeros(2))
    ownership.settle()
    assert ownership.copies


@pytest.mark.parametrize("record_under", [torch.no_grad, torch.inference_mode])
def test_a_plan_holds_no_copies(record_under):
    policy = bac.wrap(made_of(Ordinary), replay=FIRST)
    counts = []
    for replay in (FIRST, bac.Replay(record="ahead")):
        bac.wrap(policy, sweep(policy, (0, 3), STEPS), replay=replay)
        with record_under():
            policy.predict_action_chunk(obs(2))
        counts.append(bac.plan.record(policy, obs(2)).num_operations)
    assert counts[0] == counts[1]
