"""PAS: its directions and coordinates by hand, what it reduces to, and what the fit finds."""

from __future__ import annotations

import math

import pytest
import torch

import bac
from bac.errors import ScheduleError
from bac.published import PAS, pas
from bac.published.pas import directions, solve, turned
from bac.solvers import DPMSolver, Solver, recorded
from bac.solvers.fitting import END
from bac.solvers.interceptor import scheduler_swaps, swapped
from tests.bac.published.gaussian import ALPHAS, end_of, gaussian, grid_of, ratios_of, run
from tests.bac.solvers.samplers import Sampler, ddim, host_of, trained


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_the_first_direction_is_the_denoiser_s_and_the_others_are_principal_and_at_right_angles():
    """The rows (0, 0), (6, 0) and (3, 2) spread most along x, then along y; the denoiser's is the last of them."""
    found = directions(row(3, 2, 0), [row(0, 0, 0), row(6, 0, 0)], row(1, 1, 0), 3)[0]
    own = torch.tensor([3.0, 2.0, 0.0]).double() / math.sqrt(13)
    torch.testing.assert_close(found[0], own)
    across = torch.tensor([2.0, -3.0, 0.0]).double() / math.sqrt(13)
    across *= torch.sign(across @ torch.tensor([1.0, 1.0, 0.0]).double())  # towards where the run has gone
    torch.testing.assert_close(found[1], across)
    assert found[2].tolist() == [0, 0, 0]  # the plane is used up


def test_they_are_orthonormal():
    generator = torch.Generator().manual_seed(0)
    *past, own, scaled = (torch.randn(5, 11, generator=generator) for _ in range(5))
    found = directions(own, past, scaled, 4)
    torch.testing.assert_close(found @ found.mT, torch.eye(4).expand(5, 4, 4))
    assert (torch.einsum("bmd,bd->bm", found[:, 1:], scaled - past[0]) > 0).all()


def test_they_are_the_published_ones():
    """PyTorch's own principal components, then Gram-Schmidt as a QR decomposition.

    The official code asks for three components alone, which PyTorch then draws at random and approximates.
    """
    generator = torch.Generator().manual_seed(0)
    *past, own, scaled = (torch.randn(5, 11, generator=generator).double() for _ in range(6))
    principal = torch.pca_lowrank(torch.stack([*past, own], dim=1), q=5)[2][:, :, :3]
    expected = torch.linalg.qr(torch.cat([own[:, :, None], principal], dim=2)).Q.mT
    towards = torch.stack([own, *[scaled - past[0]] * 3], dim=1)
    expected = expected * (expected * towards).sum(2, keepdim=True).sign()
    torch.testing.assert_close(directions(own, past, scaled, 4), expected)


def test_the_span_holds_the_whole_run_s_directions():
    generator = torch.Generator().manual_seed(0)
    start, first, own = (torch.randn(2, 7, generator=generator).double() for _ in range(3))
    basis = directions(own, [start, first], start, 3)
    across = first - start
    torch.testing.assert_close(torch.einsum("bmd,bm->bd", basis, torch.einsum("bmd,bd->bm", basis, across)), across)


def test_coordinates_are_lengths_or_shares_of_the_denoiser_s_length():
    basis = torch.tensor([[[0.6, 0.8], [-0.8, 0.6]]])
    own = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(turned(basis, (5.0, 0.0), own, relative=False), own)
    torch.testing.assert_close(turned(basis, (1.0, 0.0), own, relative=True), own)
    torch.testing.assert_close(turned(basis, (0.0, 2.0), own, relative=False), torch.tensor([[-1.6, 1.2]]))


def test_by_hand():
    """One step from ratio 4 of noise to clean actions to none, along 2 u1 in place of the denoiser's (3, 4)."""
    scheduler = PAS(((2.0,),)).scheduler(trained(ratios_of([4.0])), (0,))
    share = 1 / math.sqrt(17)
    found = scheduler.step(row(3, 4), 0, row(1, 7) * share).prev_sample
    torch.testing.assert_close(found, row(1 - 4 * 2 * 0.6, 7 - 4 * 2 * 0.8))


@pytest.mark.slow
@pytest.mark.parametrize("clip", [False, True])
def test_without_corrections_it_is_first_order_dpm_solver(clip):
    diffusers = pytest.importorskip("diffusers")
    own = diffusers.DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", clip_sample=clip)
    timesteps, start = (90, 60, 30), torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    ends = [
        run(solver.scheduler(own, timesteps), start, lambda sample, _: sample.sin())
        for solver in (PAS(((),) * 3), DPMSolver(1))
    ]
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-4)


def test_without_corrections_or_clipping_it_is_ddim():
    timesteps, start = grid_of(5), row(1, -2, 3)
    ends = [
        run(solver.scheduler(trained(ALPHAS), timesteps), start)
        for solver in (PAS(((),) * 5), ddim(ALPHAS, timesteps), PAS(((1.0,),) * 5, relative=True))
    ]
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])  # the denoiser's own direction at its own length


class Gaussian(Sampler):
    """Runs on Gaussian data, so every direction is a multiple of the noise that the run began with."""

    def run(self) -> torch.Tensor:
        return run(self.noise_scheduler, self.start)


def fitted(start: torch.Tensor, timesteps: tuple[int, ...], **options):
    """PAS fitted to the ODE's own states, and the sampler and its host."""
    sampler = Gaussian(ddim(ALPHAS, timesteps).scheduler(trained(ALPHAS), timesteps), start)
    host = host_of(sampler)
    states = {END: end_of(start)}
    for timestep in timesteps:
        alpha = float(ALPHAS[timestep])
        ratio = math.sqrt(1 / alpha - 1)
        states[timestep] = end_of(start) * math.sqrt(0.25 + ratio**2) / 0.5 * math.sqrt(alpha)
    return pas.fit(host, lambda: sampler.run(), states, timesteps, **options), sampler, host


def ended(sampler, host, solver, timesteps) -> torch.Tensor:
    with swapped(host, scheduler_swaps(host, solver.scheduler(sampler.noise_scheduler, timesteps), len(timesteps))):
        return sampler.run()


@pytest.mark.parametrize("relative", [False, True])
def test_on_gaussian_data_one_coordinate_a_step_ends_where_the_ode_ends(relative):
    """All samples as long as each other, so that both kinds of coordinates can be exact."""
    start = torch.tensor([[3.0, 4.0, 0.0], [0.0, -5.0, 0.0]]).double()
    timesteps = grid_of(4)
    solver, sampler, host = fitted(start, timesteps, num_directions=1, tolerance=0, relative=relative)
    assert [len(each) for each in solver.coordinates] == [1, 1, 1, 1]
    sampler.start = torch.tensor([[0.0, 0.0, 5.0]]).double()  # not among those it was fitted on
    torch.testing.assert_close(ended(sampler, host, solver, timesteps), end_of(sampler.start))


def test_samples_of_another_length_need_relative_coordinates():
    """A fit at length 5 is wrong at length 10 where coordinates are lengths, and right where they are shares."""
    start, timesteps = torch.tensor([[3.0, 4.0]]).double(), grid_of(4)
    for relative in (False, True):
        solver, sampler, host = fitted(start, timesteps, num_directions=1, tolerance=0, relative=relative)
        sampler.start = 2 * start
        off = (ended(sampler, host, solver, timesteps) - end_of(sampler.start)).norm() / end_of(sampler.start).norm()
        assert off < 1e-9 if relative else off > 1


def test_the_fitted_coordinate_is_the_mean_over_the_samples():
    columns = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).double()
    found, loss = solve(columns, torch.tensor([[2.0, 0.0], [9.0, 4.0]]).double())
    assert found == pytest.approx((3.0,))
    assert loss == pytest.approx((1 + 81 + 1) / 4)
    assert solve(torch.zeros(2, 1, 2).double(), torch.ones(2, 2).double())[0] == (0.0,)


def test_only_steps_that_gain_more_than_the_tolerance_are_corrected():
    start, timesteps = torch.tensor([[3.0, 4.0]]).double(), grid_of(4)
    free = fitted(start, timesteps, tolerance=0)[0]
    assert all(free.coordinates)
    none = fitted(start, timesteps, tolerance=math.inf)[0]
    assert none == PAS(((),) * 4)
    some = fitted(start, timesteps, tolerance=0.5)[0]
    assert {bool(each) for each in some.coordinates} == {True, False}


def test_early_steps_have_fewer_directions():
    """A denoiser of unequal gains, so that every step has a direction of its own, fitted to random states."""
    draw, timesteps, gains = torch.Generator().manual_seed(0), (9, 7, 4, 2), torch.linspace(0.1, 1.0, 11)
    alphas = torch.linspace(0.95, 0.05, 10)
    sampler = Sampler(ddim(alphas, timesteps).scheduler(trained(alphas), timesteps), torch.randn(7, 11, generator=draw))
    states = {timestep: torch.randn(7, 11, generator=draw) for timestep in (*timesteps, END)}
    sampler.run = lambda: run(sampler.noise_scheduler, sampler.start, lambda sample, _: gains * sample)
    host = host_of(sampler)
    solver = pas.fit(host, lambda: sampler.run(), states, timesteps, tolerance=0, relative=True)
    assert [len(each) for each in solver.coordinates] == [2, 3, 4, 4]


def test_fitting_leaves_the_policy_as_it_was():
    timesteps = grid_of(3)
    sampler = Gaussian(ddim(ALPHAS, timesteps).scheduler(trained(ALPHAS), timesteps), row(3, 4))
    host, own, names = host_of(sampler), dict(vars(sampler)), set(vars(sampler.noise_scheduler))
    with recorded(host) as states:
        sampler.run()
    pas.fit(host, lambda: sampler.run(), states, timesteps)
    assert vars(sampler) == own
    assert set(vars(sampler.noise_scheduler)) == names


def test_it_is_a_solver_that_names_and_draws_itself():
    solver = PAS(((2.0,), ()))
    assert isinstance(solver, Solver)
    assert bac.Denoising(solver, (9, 3)).name == "PAS, 2 steps"
    assert PAS(((),), relative=True).name == "PAS, relative"
    assert str(solver).splitlines() == ["step  coordinates", "   0      2.0000", "   1  DDIM"]


@pytest.mark.parametrize(
    "coordinates, message",
    [
        ((), "must have a row for every step, got none"),
        (((1.0, 2.0, 3.0),), "coordinates of step 0: at most 2 directions exist, got 3"),
        (((math.nan,),), r"coordinates of step 0: must be finite, got \(nan,\); fit again"),
    ],
)
def test_other_coordinates_are_refused(coordinates, message):
    with pytest.raises(ScheduleError, match=message):
        PAS(coordinates)


def test_timesteps_that_do_not_fit_are_refused():
    with pytest.raises(ScheduleError, match="must be 1, one for each row of coordinates, got 2"):
        bac.Denoising(PAS(((),)), (2, 1))
    with pytest.raises(ScheduleError, match="must be of the 2 of the recorded run, got 5"):
        pas.fit(None, print, {END: row(1), 3: row(1), 1: row(1)}, (5, 3))
    for options in ({"num_directions": 0}, {"tolerance": -1.0}, {"tolerance": math.nan}):
        with pytest.raises(ScheduleError, match="num_directions, tolerance: must be at least 1 and 0, got"):
            pas.fit(None, print, {3: row(1)}, (3,), **options)


def test_gaussian_runs_follow_the_ode():
    """The kit itself: many steps of DDIM end where the closed form says."""
    timesteps = grid_of(2000)
    end = run(ddim(ALPHAS, timesteps).scheduler(trained(ALPHAS), timesteps), row(1), gaussian)
    assert end.item() == pytest.approx(end_of(row(1)).item(), rel=2e-3)
