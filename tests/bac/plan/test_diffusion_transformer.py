"""Plans of DP-T with diffusers' noise schedulers: the real thing, small; and the gates at the paper's size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bac
import bac.plan
from tests.bac.plan.runs import FIRST, Counting

pytest.importorskip("lerobot")

from tests.policies.models import observations, small_policy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def schedule(policy, num_steps, num_updates, fragmented):
    names = [block.name for block in bac.adapters.find_host(policy).blocks]
    spread = tuple(range(0, num_steps, num_steps // num_updates))[:num_updates]
    rng = np.random.default_rng(num_updates)
    updates = dict.fromkeys(names, spread)
    if fragmented and num_updates < num_steps:
        drawn = [rng.choice(np.arange(1, num_steps), num_updates - 1, replace=False) for _ in names]
        updates = {name: (0, *sorted(map(int, steps))) for name, steps in zip(names, drawn, strict=True)}
    return bac.Schedule(num_steps, updates)


def chunks(policy, batch_size, count=2):
    batch = observations(batch_size)
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    results = [policy.predict_action_chunk(batch, generator=generator) for generator in generators]
    return [*results, *(generator.get_state() for generator in generators)]


CASES = [
    ("DDPM", 100, 1, 1, False),
    ("DDPM", 100, 10, 1, False),
    ("DDPM", 100, 10, 1, True),
    ("DDPM", 100, 100, 1, False),
    ("DDPM", 20, 5, 7, True),
    ("DDIM", 20, 5, 1, True),
    ("DDIM", 10, 10, 7, False),
    ("DPM-Solver++", 10, 5, 7, True),
    ("DPM-Solver++", 10, 1, 1, False),
]


def interpreted(solver, num_steps, num_updates, batch_size, fragmented):
    """A policy, a schedule, and the chunks it makes when it follows that through the interceptors."""
    policy = small_policy(n_layer=1)
    policy.diffusion.use_solver(solver, num_steps)
    plan = schedule(policy, num_steps, num_updates, fragmented)
    bac.wrap(policy, plan, replay=False, strict=False)
    expected = chunks(policy, batch_size)
    return policy, plan, expected


@pytest.mark.parametrize(("solver", "num_steps", "num_updates", "batch_size", "fragmented"), CASES)
def test_exact_replay_is_bit_equal(solver, num_steps, num_updates, batch_size, fragmented):
    policy, plan, expected = interpreted(solver, num_steps, num_updates, batch_size, fragmented)
    bac.wrap(policy, plan, replay=FIRST, strict=False)
    assert all(torch.equal(one, other) for one, other in zip(chunks(policy, batch_size), expected, strict=True))
    assert len(bac.plan.plans(policy)) == 1


@pytest.mark.parametrize(("solver", "num_steps", "num_updates", "batch_size", "fragmented"), CASES[::3])
def test_reassociated_replay_is_close(solver, num_steps, num_updates, batch_size, fragmented):
    policy, plan, expected = interpreted(solver, num_steps, num_updates, batch_size, fragmented)
    bac.wrap(policy, plan, replay=bac.Replay(exact=False, record="first"), strict=False)
    for one, other in zip(chunks(policy, batch_size), expected, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_one_generator_per_row():
    policy = small_policy(n_layer=1)
    policy.diffusion.use_solver("DDPM", 5)
    batch = observations(3)
    results = []
    for replay in (False, FIRST):
        bac.wrap(policy, schedule(policy, 5, 5, False), replay=replay, strict=False)
        for seeds in ((1, 2, 3), (4, 4, 5)):
            rows = [torch.Generator().manual_seed(seed) for seed in seeds]
            results.append(policy.predict_action_chunk(batch, generator=rows))
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])


def test_another_solver_is_noticed():
    policy = small_policy(n_layer=1)
    results = []
    for replay in (False, FIRST):
        policy.diffusion.use_solver("DDPM", 10)
        bac.wrap(policy, schedule(policy, 10, 5, False), replay=replay, strict=False)
        for solver in ("DDPM", "DDIM", "DPM-Solver++"):
            policy.diffusion.use_solver(solver, 10)
            results.append(chunks(policy, 1)[1])
    assert all(torch.equal(one, other) for one, other in zip(results[:3], results[3:], strict=True))


@pytest.mark.parametrize(
    ("updates", "exact", "ceiling"), [("dense", True, 18_000), ("uniform", True, 5_200), ("uniform", False, 2_800)]
)
def test_operators_dispatched_at_the_papers_size(updates, exact, ceiling):
    policy = small_policy(n_layer=8, n_emb=256, n_head=4, horizon=10, num_inference_steps=100)
    chosen = None if updates == "dense" else schedule(policy, 100, 10, False)
    bac.wrap(policy, chosen, replay=bac.Replay(exact=exact, record="first"), strict=False)
    batch = observations(1)
    plan = bac.plan.record(policy, batch)
    with torch.inference_mode(), Counting() as counting:
        policy.predict_action_chunk(batch)
    assert plan.num_operations <= counting.num_operations <= plan.num_operations + 2  # and the observation's `cat`
    assert counting.num_operations <= ceiling
    assert not {"_local_scalar_dense", "item", "is_nonzero"} & set(counting.by_name)
    assert plan.constant_bytes + plan.peak_bytes < 100e6
