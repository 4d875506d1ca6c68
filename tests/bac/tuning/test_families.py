"""Ways to denoise on a small DP-T: what the timesteps, the cache and both together give."""

from __future__ import annotations

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.errors import MismatchError
from bac.solvers import SOLVERS, solvers_of
from bac.tuning.bench import Bench, running
from bac.tuning.families import families, fewer_steps, starts, together
from tests.bac.models import TinyTransformerPolicy, obs

pytest.importorskip("lerobot")

from tests.policies.models import observations, small_policy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
FIRST_ORDER = SOLVERS[0]
GRID = tuple(range(99, -1, -5))


@pytest.fixture
def policy():
    made = small_policy(n_layer=1, noise_scheduler_type="DDIM")
    made.diffusion.use_solver("DDIM", len(GRID))
    return made


def names_of(policy):
    return [block.name for block in find_host(policy).blocks]


def chunk(policy, denoising):
    with running(policy, denoising):
        return policy.predict_action_chunk(observations(2), generator=torch.Generator().manual_seed(0))


def test_fewer_steps_are_some_of_the_grid_s():
    assert fewer_steps(FIRST_ORDER, GRID, (1, 6)) == bac.Denoising("DPM-Solver++ 1", (94, 69))


def test_a_cache_that_updates_at_every_step_changes_nothing(policy):
    every = range(len(GRID))
    cached = together(FIRST_ORDER, GRID, every, names_of(policy), "taylor-1")
    assert torch.equal(chunk(policy, cached), chunk(policy, fewer_steps(FIRST_ORDER, GRID, every)))


def test_between_updates_lie_the_grid_s_timesteps_or_every_so_many(policy):
    dense_grid = together(FIRST_ORDER, GRID, (2, 4), names_of(policy), "hold")
    assert dense_grid.timesteps == GRID[2:]
    coarse = together(FIRST_ORDER, GRID, (2, 4, 11), names_of(policy), "hold", stride=8)
    assert coarse.timesteps == (GRID[2], GRID[4], GRID[10], GRID[11], GRID[18])
    assert coarse.schedule.update_steps[names_of(policy)[0]] == (0, 1, 3)


def test_a_way_that_is_refused_leaves_the_policy_as_it_was(policy):
    before = {name: vars(module).copy() for name, module in policy.named_modules()}
    with pytest.raises(bac.BacError, match="other blocks"):
        bac.wrap(policy, together(FIRST_ORDER, GRID, (1, 6), ["no such block"], "hold"))
    assert {name: vars(module) for name, module in policy.named_modules()} == before


@pytest.mark.parametrize("stride", [1, 5])
def test_a_way_taken_off_leaves_no_trace(policy, stride):
    before = {name: vars(module).copy() for name, module in policy.named_modules()}
    chunk(policy, together(FIRST_ORDER, GRID, (1, 6), names_of(policy), "taylor-1", stride))
    assert {name: vars(module) for name, module in policy.named_modules()} == before


def test_a_schedule_taken_from_its_solver_is_refused_on_the_policy_s_own_steps(policy):
    denoising = together(FIRST_ORDER, GRID, (1, 6), names_of(policy), "hold")
    signed = bac.Denoising(
        denoising.solver, denoising.timesteps, schedule=denoising.schedule, fingerprint=find_host(policy).fingerprint()
    )
    with pytest.raises(MismatchError, match="num_steps: the schedule has 19, the policy has 20"):
        bac.wrap(policy, signed.schedule)


def test_a_policy_that_takes_solvers_has_families_of_each_and_of_a_cache_on_the_first(policy):
    bench = Bench(policy, {"fit": [observations(2)], "held out": [observations(2)]}, replay=False)
    found = families(bench)
    assert [family.name for family in found] == [
        "fewer steps, DPM-Solver++ 1",
        "fewer steps, DPM-Solver++",
        "fewer steps, fitted multistep",
        "together, hold",
        "together, hold, every 5th step",
        "together, taylor-1",
        "together, taylor-1, every 5th step",
    ]
    assert {family.of_cost(3).sweeps for family in found} == {3.0}
    assert found[2].make((1, 6)).solver.name == "fitted multistep"
    assert bench.grid == tuple(range(95, -1, -5))
    assert found[4].make((1, 6)).timesteps == (90, 65, 40, 15)


def test_a_policy_without_a_choice_of_solver_has_caches_on_its_own_steps():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    assert solvers_of(find_host(policy)) == ()
    bench = Bench(policy, {"fit": [obs(2)], "held out": [obs(2)]}, replay=False)
    names = names_of(policy)
    for family, estimator in zip(families(bench), ("hold", "taylor-1"), strict=True):
        schedule = bac.Schedule(6, dict.fromkeys(names, (0, 2)), estimator=estimator)
        assert (family.name, family.free) == (f"together, {estimator}", False)
        assert family.make((0, 2)) == bac.Denoising(num_steps=6, schedule=schedule)


def test_every_starting_place_has_as_many_distinct_increasing_steps_as_asked():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    calibration = bac.calibrate(policy, [obs(3)], progress=False)
    for count in (1, 2, 5):
        for places in starts(calibration, count):
            assert list(places) == sorted(set(places)) and len(places) == count
            assert places[0] >= 0 and places[-1] < 6
