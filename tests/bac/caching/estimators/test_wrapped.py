"""Estimators and online rules on a wrapped policy: what the layers receive."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import bac
import bac.plan
from bac import published
from bac.caching.estimators import Hold, Residual, Taylor
from bac.errors import ScheduleError
from bac.published import FittedForecast, Increment, PreviousChunk, Rescale, ScaleShift
from bac.recording import record_features
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep

ONE = {"obs": torch.zeros(1, 1)}
STEPS = (0, 2, 3)


def tick(num_steps, steps, estimator=None, *, named="hold"):
    policy = TickPolicy(num_steps)
    schedule = bac.Schedule(num_steps, {"tick0": steps}, estimator=named)
    return bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=estimator), blocks=policy.blocks())


def received(policy):
    return record_features(policy, ONE, blocks=policy.blocks())["tick0"].flatten().tolist()


def chunk(policy, seed=0, batch_size=3):
    torch.manual_seed(seed)
    policy.reset()
    with torch.no_grad():
        return policy.predict_action_chunk(obs(batch_size))


def test_a_reused_block_returns_the_forecast():
    # 1 at step 0 and 2 at step 2: half a tick a step.
    assert received(tick(5, (0, 2), Taylor(1))) == [1, 1, 2, 2.5, 3]


def test_the_schedule_names_its_estimator():
    assert received(tick(5, (0, 2), named="taylor-1")) == [1, 1, 2, 2.5, 3]
    assert received(tick(5, (0, 2), Hold(), named="taylor-1")) == [1, 1, 2, 2, 2]


def test_a_schedule_keeps_its_estimator(tmp_path):
    schedule = bac.Schedule(4, {"tick0": (0, 2)}, estimator="taylor-1")
    bac.Denoising(schedule=schedule).save(tmp_path / "bac.json")
    assert bac.load(tmp_path / "bac.json").schedule == schedule
    assert schedule != bac.Schedule(4, {"tick0": (0, 2)})
    assert str(schedule).splitlines()[0].endswith("# update  . taylor-1")
    with pytest.raises(ScheduleError, match="estimator: must be a name"):
        bac.Schedule(4, {"tick0": (0,)}, estimator="")


def test_a_schedule_for_a_fitted_estimator_asks_for_its_parameters():
    with pytest.raises(ScheduleError, match=r"bac\.published\.ScaleShift\.fit\(schedule, features\)"):
        tick(5, (0, 2), named="scale_shift")


def test_tuples_keep_their_rest_from_the_last_update():
    policy = TickPolicy(num_steps=3)
    forward = type(policy.ticks[0]).forward
    policy.ticks[0].forward = lambda x: (forward(policy.ticks[0], x), "rest")
    seen = []
    policy.predict_action_chunk = lambda batch: seen.extend(policy.ticks[0](batch["obs"]) for _ in range(3))
    schedule = bac.Schedule(3, {"tick0": (0, 1)})
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(1)), blocks=policy.blocks())
    policy.predict_action_chunk(ONE)
    assert [(value.item(), rest) for value, rest in seen] == [(1, "rest"), (2, "rest"), (3, "rest")]


def test_a_forecast_continues_every_tensor_of_a_tuple():
    policy = TickPolicy(num_steps=4)
    forward = type(policy.ticks[0]).forward
    policy.ticks[0].forward = lambda x: ((value := forward(policy.ticks[0], x)), 10 * value)
    seen = []
    policy.predict_action_chunk = lambda batch: seen.extend(policy.ticks[0](batch["obs"]) for _ in range(4))
    schedule = bac.Schedule(4, {"tick0": (0, 1)})
    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(1)), blocks=policy.blocks())
    policy.predict_action_chunk(ONE)
    assert [(one.item(), other.item()) for one, other in seen] == [(1, 10), (2, 20), (3, 30), (4, 40)]


def fitted(policy, kind):
    schedule = sweep(policy, STEPS, policy.num_steps)
    features = [record_features(policy, obs(3, seed), seed=seed) for seed in (0, 1)]
    if kind is Increment:
        return kind.fit(schedule, features, features, rank=2)
    return kind.fit(schedule, features)


@pytest.mark.parametrize("kind", [Taylor, Rescale, Residual, PreviousChunk, ScaleShift, FittedForecast, Increment])
def test_updating_everywhere_is_bit_equal_and_unwrapping_leaves_no_trace(kind):
    policy = TinyTransformerPolicy()
    dense = chunk(policy)
    before = [sorted(vars(module)) for module in policy.modules()]
    estimator = fitted(policy, kind) if hasattr(kind, "fit") else kind()
    bac.wrap(policy, bac.Denoising(schedule=sweep(policy, tuple(range(7)), 7), estimator=estimator))
    assert torch.equal(chunk(policy), dense)
    bac.unwrap(policy)
    assert [sorted(vars(module)) for module in policy.modules()] == before


@pytest.mark.parametrize("kind", [Taylor, Rescale, Residual, ScaleShift, FittedForecast, Increment])
def test_a_plan_replays_what_the_interceptors_do(kind):
    policy = TinyTransformerPolicy(num_layers=1)
    estimator = fitted(policy, kind) if hasattr(kind, "fit") else kind()
    denoising = bac.Denoising(schedule=sweep(policy, STEPS, 7), estimator=estimator)
    expected = chunk(bac.wrap(policy, denoising, replay=False))
    bac.wrap(policy, denoising, replay=bac.Replay(record="first"))
    assert torch.equal(chunk(policy), expected)
    assert torch.equal(chunk(policy), expected)
    assert len(bac.plan.plans(policy)) == 1


def test_the_previous_chunk_stands_in_until_reset():
    policy = tick(3, (0,), PreviousChunk())
    assert policy.predict_action_chunk(ONE).item() == 1 + 2 + 3
    assert policy.predict_action_chunk(ONE).item() == 4 + 2 + 3
    policy.reset()  # the ticks count anew, too
    assert policy.predict_action_chunk(ONE).item() == 1 + 2 + 3


def test_a_copy_does_not_share_the_previous_chunk():
    policy = tick(3, (0,), PreviousChunk())
    policy.predict_action_chunk(ONE)
    twin = copy.deepcopy(policy)
    assert twin.predict_action_chunk(ONE).item() == 4 + 5 + 6
    assert policy.predict_action_chunk(ONE).item() == 4 + 2 + 3


def test_what_depends_on_the_past_or_on_the_run_is_not_replayed():
    policy = TinyTransformerPolicy()
    across = bac.Denoising(schedule=sweep(policy, STEPS, 7), estimator=PreviousChunk())
    with pytest.raises(ScheduleError, match="previous_chunk makes a run depend on the run before"):
        bac.wrap(policy, across, replay=bac.Replay())
    with pytest.raises(ScheduleError, match="FirstBlock makes a run depend on what it sees"):
        bac.wrap(policy, published.FirstBlock(7, 0.1), replay=bac.Replay())


def test_online_rules_with_nothing_to_skip_are_bit_equal():
    policy = TinyTransformerPolicy()
    dense = chunk(policy)
    rules = [
        published.FirstBlock(7, -1.0),
        published.AccumulatedChange(7, 0.0),
        published.BlockChange(7, 0.0, 2),
        published.Codebook(7, ((0.0, 3),)),
    ]
    for rule in rules:
        bac.wrap(policy, rule)
        assert torch.equal(chunk(policy), dense)
        assert published.last_mask(policy).all()


def test_online_rules_that_skip_all_they_can():
    policy = TinyTransformerPolicy()
    masks = {}
    for rule in (
        published.FirstBlock(7, 1e9),
        published.AccumulatedChange(7, 1e9),
        published.BlockChange(7, 1e9, 2),
        published.Codebook(7, ((1e9, 3),)),
    ):
        bac.wrap(policy, rule)
        chunk(policy)
        masks[type(rule).__name__] = published.last_mask(policy)
    first = masks["FirstBlock"]
    assert first[:, :3].all() and first[0].all() and not first[1:, 3:].any()
    rows = {name: [int(s) for s in np.flatnonzero(mask.all(axis=1))] for name, mask in masks.items()}
    assert rows["AccumulatedChange"] == [0, 6]  # the first and the last
    assert rows["BlockChange"] == [0, 1, 4, 6]  # a change is known after two updates; then two are skipped
    assert rows["Codebook"] == [0, 1, 4, 6]


def test_an_online_rule_copes_with_an_estimator():
    policy = TinyTransformerPolicy()
    dense = chunk(policy)
    bac.wrap(policy, bac.Denoising(schedule=published.AccumulatedChange(7, 0.0), estimator=Taylor(1)))
    assert torch.equal(chunk(policy), dense)
