"""What only depends on the observation is computed once per action chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import bac
from bac.adapters import find_host
from bac.caching.interceptors.once import SplitConditioning
from bac.caching.interceptors.patch import interceptors
from tests.lerobot import models

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:CUDA is not available"
    ),  # fastwam asks for autocast on a device that is not there
]

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "smolvla": models.smolvla,
    "groot": lambda: heads.make(heads.Groot),
    "vla_jepa": lambda: heads.make(heads.VLAJEPA),
    "fastwam": lambda: heads.make(backbones.FastWAM),
}


def everywhere(policy: nn.Module) -> bac.Schedule:
    host = find_host(policy)
    return bac.Schedule(host.num_steps, dict.fromkeys([b.name for b in host.blocks], tuple(range(host.num_steps))))


@pytest.mark.parametrize("name", MAKERS)
def test_keys_and_values_of_the_observation_are_projected_once(name):
    policy, calls = MAKERS[name](), []
    sites = find_host(policy).constants
    for index, site in enumerate(sites):
        _count(site.owner, site.attribute, calls, index)
    bac.wrap(policy, everywhere(policy), replay=False)
    predict = find_host(policy).predict
    batch = models.observation(1) if name == "smolvla" else heads.encoded(1)
    predict(dict(batch))
    assert sorted(calls) == list(range(len(sites)))
    predict(dict(batch))
    assert len(calls) == 2 * len(sites)


def test_the_modulation_of_multi_task_dit_is_split_within_rounding():
    policy = models.multi_task_dit(num_inference_steps=7)
    predict = find_host(policy).predict
    batch = models.observation(2, steps=2, image=False)
    torch.manual_seed(0)
    dense = predict(batch)
    bac.wrap(policy, everywhere(policy), replay=bac.Replay(exact=False, record="ahead"))
    for _ in range(2):
        torch.manual_seed(0)
        assert (predict(batch) - dense).abs().max() <= 1e-5 * dense.abs().max()
    bac.unwrap(policy)
    torch.manual_seed(0)
    assert torch.equal(predict(batch), dense)


def test_a_hoist_is_not_used_where_bits_count():
    policy = models.multi_task_dit(num_inference_steps=7)
    bac.wrap(policy, everywhere(policy), replay=False)
    assert not [found for _, _, found in interceptors(policy) if isinstance(found, SplitConditioning)]


def _count(owner: nn.Module, attribute: str, calls: list[int], index: int) -> None:
    original = getattr(owner, attribute)

    def counted(*inputs: Any, **options: Any) -> Any:
        calls.append(index)
        return original(*inputs, **options)

    vars(owner)[attribute] = counted
