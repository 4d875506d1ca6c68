"""The multistep solver: its sum by hand, and what it has in common with the noise scheduler that it replaces."""

from __future__ import annotations

import pytest
import torch

from bac.errors import RunError, ScheduleError
from bac.solvers import FLOW_SOLVERS, DPMSolver, Multistep, solver_named
from bac.solvers.multistep import MultistepScheduler, clip_of, level, predictions
from tests.bac.solvers.samplers import Sampler, trained


def test_a_step_is_the_sum_of_what_it_knows():
    scheduler = MultistepScheduler(trained(), (3, 2), ((0.0, 2.0, 1.0), (0.0, 0.0, 0.0, 0.0, 3.0)))
    first = scheduler.step(torch.tensor([5.0]), 3, torch.tensor([7.0])).prev_sample
    assert first.item() == 2 * 5 + 7
    assert scheduler.step(torch.tensor([1.0]), 2, first).prev_sample.item() == 3 * 5  # the noise of the step before


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
def test_clean_actions_and_noise_are_found_whatever_the_denoiser_predicts(predicts):
    clean, noise, (a, s) = torch.tensor([0.3]), torch.tensor([-0.8]), level(0.36)
    output = {"epsilon": noise, "sample": clean, "v_prediction": a * noise - s * clean}[predicts]
    found = predictions(output, a * clean + s * noise, (a, s), predicts, None)
    torch.testing.assert_close(torch.stack(found), torch.stack((clean, noise)))


def test_what_is_predicted_in_another_way_is_refused():
    with pytest.raises(ScheduleError, match="epsilon, sample or v_prediction, got 'score'"):
        predictions(torch.zeros(1), torch.zeros(1), (1.0, 0.0), "score", None)


def test_clean_actions_are_clipped_where_the_policy_clips_them_and_so_is_the_end():
    scheduler = MultistepScheduler(trained(clip_sample=True, clip_sample_range=2.0), (3,), ((3.0, 0.0, 0.0),))
    assert scheduler.step(torch.tensor([0.0]), 3, torch.tensor([9.0])).prev_sample.item() == 2.0


def test_dynamic_thresholding_is_a_clip_at_one_and_otherwise_refused():
    clip = {"clip_sample": True, "clip_sample_range": 2.0}
    assert clip_of({"thresholding": True, "sample_max_value": 1.0, **clip}) == 1.0  # diffusers looks at it first
    assert (clip_of({"thresholding": False, **clip}), clip_of({"clip_sample": False})) == (2.0, None)
    with pytest.raises(ScheduleError, match="thresholds dynamically, up to sample_max_value=4, which no other solver"):
        clip_of({"thresholding": True, "sample_max_value": 4.0, **clip})


def test_a_run_forgets_the_one_before():
    coefficients = ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0, 1.0))
    sampler = Sampler(MultistepScheduler(trained(), (3, 2), coefficients), torch.ones(2))
    assert torch.equal(sampler.run(), sampler.run())


def test_a_run_of_more_steps_is_an_error_and_not_a_guess():
    scheduler = MultistepScheduler(trained(), (3,), ((1.0, 0.0, 0.0),))
    scheduler.step(torch.ones(1), 3, torch.ones(1))
    with pytest.raises(RunError, match="for 1 steps, and this run makes another one"):
        scheduler.step(torch.ones(1), 2, torch.ones(1))


def test_coefficients_of_another_length_are_refused_with_what_they_stand_for():
    with pytest.raises(ScheduleError, match=r"coefficients of step 1: must be 5 \(clean, noise, sample, clean before"):
        Multistep(((1.0, 0.0, 0.0), (1.0, 0.0)))
    for refusing in (Multistep.check, lambda solver, timesteps: solver.scheduler(trained(), timesteps)):
        with pytest.raises(ScheduleError, match="timesteps: must be 1, one for each row of coefficients, got 2"):
            refusing(Multistep(((1.0, 0.0, 0.0),)), (3, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_coefficients_that_are_not_finite_are_refused(value):
    with pytest.raises(ScheduleError, match=rf"coefficients of step 0: must be finite.* got \(1.0, {value}, 0.0\)"):
        Multistep(((1.0, value, 0.0),))


def test_making_a_noise_scheduler_changes_nothing_of_the_one_it_is_made_from():
    own = trained()
    before = dict(vars(own))
    scheduler = Multistep(((1.0, 0.0, 0.0),)).scheduler(own, (2,))
    assert vars(own) == before
    scheduler.set_timesteps(7, device="cpu")
    assert scheduler.timesteps.tolist() == [2]  # whatever number of steps it is told


def test_printed_it_is_a_table_of_its_terms():
    assert str(Multistep(((1.0, 0.0, -0.25),))).splitlines() == [
        "step        clean        noise       sample clean before noise before",
        "   0       1.0000       0.0000      -0.2500",
    ]


def test_a_name_finds_its_solver():
    assert [solver_named(name) for name in ("DPM-Solver++", "DPM-Solver++ 1")] == [DPMSolver(2), DPMSolver(1)]
    assert [solver_named(name) for name in ("Euler", "Adams-Bashforth")] == list(FLOW_SOLVERS)
    assert solver_named("fitted multistep", [[1, 0, 0]]) == Multistep(((1.0, 0.0, 0.0),))


def test_what_no_name_says_is_refused():
    with pytest.raises(
        ScheduleError, match=r"must be one of DPM-Solver\+\+ 1, .*, Euler, .*, fitted ancestral, got 'Heun'"
    ):
        solver_named("Heun")
    with pytest.raises(ScheduleError, match=r"fitted multistep needs its coefficients; bac\.tune\(policy, batches"):
        solver_named("fitted multistep")
    with pytest.raises(ScheduleError, match=r"fitted ancestral needs its coefficients; bac\.tune\(policy, batches"):
        solver_named("fitted ancestral", coefficients=[(1.0, 0.0, 0.0)])
