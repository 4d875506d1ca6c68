"""Variants of the fitted ancestral solver: what each changes, and what it leaves."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("hydra")

import bac
from bac.solvers.multistep import level
from bac.tuning.bench import Bench
from eval.experiments.ancestral import variants
from tests.policies.models import observations, small_policy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(small_policy(n_layer=1), {"fit": [observations(4)], "held out": [observations(2)]})


@pytest.fixture(scope="module")
def runs(bench):
    return variants.dense_runs(bench)


def test_the_first_step_has_no_states_but_the_dense_runs(bench):
    timesteps = (bench.grid[0], bench.grid[2], bench.grid[-1])
    dense, own = variants.dense_runs(bench, variants.SEED)(timesteps), variants.on_own_states(bench, timesteps)
    assert own.coefficients[0] == pytest.approx(dense.coefficients[0], rel=1e-3)
    assert own.scales[0] == pytest.approx(dense.scales[0], rel=1e-3)
    assert own.coefficients[1] != pytest.approx(dense.coefficients[1], rel=1e-3)
    assert own.scales[-1] == 0.0


def test_late_steps_follow_ddim_and_draw_nothing(bench, runs):
    timesteps = bench.grid[:4]
    fitted = runs(timesteps)
    changed = variants.late_deterministic(bench, fitted, timesteps, 1)
    trained = bench.host.sampler_owner.noise_scheduler
    assert changed.coefficients[2] == (*level(float(trained.alphas_cumprod[timesteps[3]])), 0.0, 0.0, 0.0)
    assert changed.scales == (*fitted.scales[:2], 0.0, 0.0)
    assert (changed.coefficients[:2], changed.coefficients[3]) == (fitted.coefficients[:2], fitted.coefficients[3])


def test_the_root_gives_noise_the_correlation_of_what_a_step_leaves():
    """Neighbours in time share half of their noise."""
    noise = torch.randn(200_000, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left = (noise[:, :3] + noise[:, 1:]) * 7
    root = torch.tensor(variants._root_of(left), dtype=torch.float64)
    wanted = torch.tensor([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]], dtype=torch.float64)
    torch.testing.assert_close(root @ root.T, wanted, rtol=0, atol=0.01)


def test_correlated_noise_comes_from_the_draws_of_the_fitted_solver(bench, runs):
    """Where the root is one, both make the same chunks."""
    timesteps = bench.grid[:3]
    fitted, horizon = runs(timesteps), bench.policy.config.horizon
    one = tuple(tuple(float(row == column) for column in range(horizon)) for row in range(horizon))
    same = variants.Correlated(fitted.coefficients, fitted.scales, (one,) * 3)
    ways = [bac.Denoising(solver, timesteps) for solver in (fitted, same, variants.correlated(runs, timesteps))]
    first, second, third = (bench.draws(way, "held out") for way in ways)
    assert torch.equal(first, second) and not torch.equal(first, third)
