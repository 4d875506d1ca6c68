"""A probed chunk is a chunk like any other: where attention is inlined, residuals are added in place, and under RTC."""

from __future__ import annotations

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.guarding import report
from tests.lerobot import models

pytestmark = pytest.mark.slow

POLICIES = {
    "smolvla": models.smolvla,
    "pi0": lambda: models.pi(name="pi0"),
}


def chunk(policy: nn.Module, **options: object) -> Tensor:
    torch.manual_seed(0)
    policy.reset()
    with torch.no_grad():
        return policy.predict_action_chunk(models.observation(2), **options)


def held(policy: nn.Module) -> bac.Schedule:
    host = find_host(policy)
    names = [block.name for block in host.blocks]
    return bac.Schedule(host.num_steps, dict.fromkeys(names, (0, 2, host.num_steps - 1)), host.fingerprint())


def everything(schedule: bac.Schedule) -> bac.Guard:
    """Looks at every reused cell of every chunk, and takes any error for one too many."""
    errors = {
        (name, step): torch.zeros(50).double().numpy()
        for name, updates in schedule.update_steps.items()
        for step in range(schedule.num_steps)
        if step not in updates
    }
    return bac.Guard.of_errors(schedule, errors, probe_every=1, num_cells=10**4, patience=10**9)


@pytest.mark.parametrize("name", POLICIES)
def test_a_probed_chunk_is_bit_equal_to_any_other(name: str) -> None:
    policy = POLICIES[name]()
    schedule = held(policy)
    plain = chunk(bac.wrap(policy, schedule))
    bac.wrap(policy, schedule, guard=everything(schedule))
    assert torch.equal(chunk(policy), plain)
    seen = report(policy)
    assert seen.num_probed == 1
    assert seen.num_looks == 2 * len(schedule.block_names) * (schedule.num_steps - 3)  # two samples
    assert seen.num_exceeded > seen.num_looks / 2  # a held branch is off, inlined attention too


def test_real_time_chunking_is_left_alone() -> None:
    policy = models.smolvla()
    policy.config.rtc_config = RTCConfig(execution_horizon=3)
    policy.init_rtc_processor()
    options = {"inference_delay": 1, "prev_chunk_left_over": torch.randn(3, 6)}
    schedule = held(policy)
    plain = chunk(bac.wrap(policy, schedule), **options)
    bac.wrap(policy, schedule, guard=everything(schedule))
    assert torch.equal(chunk(policy, **options), plain)
    assert report(policy).num_probed == 1
