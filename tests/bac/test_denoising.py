"""Candidates on a small DP-T: what the timesteps, the cache and both together give."""

import math

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.plan.executor import Replayer
from bac.tuning import SOLVERS, Candidate, solvers_of
from bac.denoising import fewer_steps, together
from bac.solvers.multistep import Multistep, level

pytest.importorskip("lerobot")

from tests.policies.models import observations, small_policy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
FIRST_ORDER, SECOND_ORDER = SOLVERS
GRID = tuple(range(99, -1, -5))


@pytest.fixture
def policy():
    made = small_policy(n_layer=1, noise_scheduler_type="DDIM")
    made.diffusion.use_solver("DDIM", len(GRID))
    return made


def names_of(policy):
    return [block.name for block in find_host(policy).blocks]


def chunk(policy, candidate=None):
    undo = (lambda: None) if candidate is None else candidate.put_on(policy, executor="interpret")
    try:
        return policy.predict_action_chunk(observations(2), generator=torch.Generator().manual_seed(0))
    finally:
        undo()


def test_a_diffusion_policy_can_be_put_to_both_solvers(policy):
    assert solvers_of(find_host(policy)) == SOLVERS


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_is_the_policy_s_own_of_that_name(policy, solver):
    places = (1, 6, 13, 19)
    found = chunk(policy, fewer_steps(solver, GRID, places))
    policy.diffusion.use_solver(solver.name, 4, timesteps=[GRID[place] for place in places])
    assert torch.equal(found, chunk(policy))


def test_where_nothing_is_clipped_the_first_order_is_ddim():
    policy = small_policy(n_layer=1, noise_scheduler_type="DDIM", clip_sample=False)
    policy.diffusion.use_solver("DDIM", len(GRID))
    places = (4, 9, 14, 19)
    found = chunk(policy, fewer_steps(FIRST_ORDER, GRID, places))
    policy.diffusion.use_solver("DDIM", 4, timesteps=[GRID[place] for place in places])
    torch.testing.assert_close(found, chunk(policy), rtol=1e-4, atol=1e-4)


def second_order(policy, timesteps):
    """DPM-Solver++(2M), equation 13 of Lu et al. (2022), as coefficients; its last step is of first order."""
    shares = [level(float(policy.diffusion.noise_scheduler.alphas_cumprod[t])) for t in timesteps]
    half_log_snr = [math.log(clean / noise) for clean, noise in shares]
    rows = []
    for step in range(len(timesteps) - 1):
        (_, here), (clean, there) = shares[step : step + 2]
        h = half_log_snr[step + 1] - half_log_snr[step]
        gain = -clean * math.expm1(-h)
        slope = gain * 0.5 * h / (half_log_snr[step] - half_log_snr[step - 1]) if step else 0.0
        rows.append((gain + slope, 0.0, there / here, -slope, 0.0)[: 5 if step else 3])
    return Multistep((*rows, (1.0, 0.0, 0.0, 0.0, 0.0)))


def test_a_fitted_solver_is_replayed_bit_for_bit(policy):
    candidate = fewer_steps(Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1))), GRID, (1, 9))
    expected = chunk(policy, candidate)
    undo = candidate.put_on(policy, executor="replay")
    assert torch.equal(chunk(policy), expected)
    (replayer,) = (found for _, _, found in interceptors(policy) if isinstance(found, Replayer))
    assert len(replayer.plans) == 1 and not replayer.refusals
    undo()


def test_dpm_solver_is_one_choice_of_coefficients():
    policy = small_policy(n_layer=1, noise_scheduler_type="DDIM", clip_sample=False)
    policy.diffusion.use_solver("DDIM", len(GRID))
    places = (1, 6, 13, 19)
    solver = second_order(policy, [GRID[place] for place in places])
    found = chunk(policy, fewer_steps(solver, GRID, places))
    torch.testing.assert_close(found, chunk(policy, fewer_steps(SECOND_ORDER, GRID, places)), rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("own", ["DDPM", "DPM-Solver++", "UniPC"])
def test_solvers_are_the_same_whatever_the_policy_s_own_was(policy, own):
    candidate = fewer_steps(SECOND_ORDER, GRID, (1, 6, 13))
    expected = chunk(policy, candidate)
    policy.diffusion.use_solver(own, len(GRID))
    assert torch.equal(chunk(policy, candidate), expected)


def test_a_candidate_that_is_refused_leaves_the_policy_as_it_was(policy):
    before = {name: vars(module).copy() for name, module in policy.named_modules()}
    with pytest.raises(bac.BacError, match="other blocks"):
        together(FIRST_ORDER, GRID, (1, 6), ["no such block"], "hold").put_on(policy)
    assert {name: vars(module) for name, module in policy.named_modules()} == before


@pytest.mark.parametrize("stride", [1, 5])
def test_a_candidate_taken_off_leaves_no_trace(policy, stride):
    before = {name: vars(module).copy() for name, module in policy.named_modules()}
    chunk(policy, together(FIRST_ORDER, GRID, (1, 6), names_of(policy), "taylor-1", stride))
    assert {name: vars(module) for name, module in policy.named_modules()} == before


def test_a_copy_of_a_policy_keeps_its_timesteps(policy):
    import copy

    fewer_steps(FIRST_ORDER, GRID, (1, 6)).put_on(policy, executor="interpret")
    copied = copy.deepcopy(policy)
    expected = chunk(policy)
    policy.diffusion.noise_scheduler.set_timesteps = None
    assert torch.equal(chunk(copied), expected)


def test_a_signed_schedule_is_refused_at_other_timesteps(policy):
    schedule = together(FIRST_ORDER, GRID, (1, 6), names_of(policy), "hold").signed(policy).schedule
    with pytest.raises(bac.BacError, match="timesteps"):
        bac.wrap(policy, schedule)


def test_names_say_what_is_run(policy):
    assert fewer_steps(FIRST_ORDER, GRID, (1, 6)).name == "fewer steps, DPM-Solver++ 1, 2 steps"
    assert Candidate("dense", 7).name == "dense, its own solver, 7 steps"
