"""The fitted multistep solver: its sum by hand, what it has in common with DDIM, and what least squares find."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bac.errors import RunError, ScheduleError
from bac.solvers.fitting import END, Fitter, recorded, solve
from bac.solvers.multistep import Multistep, MultistepScheduler, level, predictions

HALF = torch.tensor([1.0, 0.5, 0.5, 0.5])  # alphas_cumprod by timestep
NO_CLIP = {"prediction_type": "epsilon", "clip_sample": False}


def trained(alphas=HALF, **config):
    return SimpleNamespace(config={**NO_CLIP, **config}, alphas_cumprod=alphas, add_noise=None)


class Owner:
    """A sampler whose denoiser predicts half of the sample as noise."""

    def __init__(self, scheduler, start):
        self.noise_scheduler, self.num_inference_steps, self.start = scheduler, len(scheduler.timesteps), start

    def run(self):
        sample = self.start
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for timestep in self.noise_scheduler.timesteps:
            sample = self.noise_scheduler.step(0.5 * sample, timestep, sample).prev_sample
        return sample


def ddim(alphas, timesteps):
    """DDIM as weights."""
    nexts = [level(float(alphas[t])) for t in timesteps[1:]] + [(1.0, 0.0)]
    return Multistep(tuple((*shares, 0.0, 0.0, 0.0)[: 5 if step else 3] for step, shares in enumerate(nexts)))


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


def test_a_run_forgets_the_one_before():
    owner = Owner(MultistepScheduler(trained(), (3, 2), ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0, 1.0))), torch.ones(2))
    assert torch.equal(owner.run(), owner.run())


def test_a_run_of_more_steps_is_an_error_and_not_a_guess():
    scheduler = MultistepScheduler(trained(), (3,), ((1.0, 0.0, 0.0),))
    scheduler.step(torch.ones(1), 3, torch.ones(1))
    with pytest.raises(RunError, match="for 1 steps, and this run makes another one"):
        scheduler.step(torch.ones(1), 2, torch.ones(1))


def test_weights_of_another_length_are_refused_with_what_they_stand_for():
    with pytest.raises(ScheduleError, match=r"weights of step 1: must be 5 \(clean, noise, sample, clean before"):
        Multistep(((1.0, 0.0, 0.0), (1.0, 0.0)))
    with pytest.raises(ScheduleError, match="timesteps: must be 1"):
        Multistep(((1.0, 0.0, 0.0),)).apply(SimpleNamespace(), (3, 2))


def test_applied_and_undone_nothing_is_left():
    owner = Owner(MultistepScheduler(trained(), (3, 2), ddim(HALF, (3, 2)).weights), torch.ones(1))
    before = dict(vars(owner))
    undo = Multistep(((1.0, 0.0, 0.0),)).apply(owner, (2,))
    assert owner.num_inference_steps == 1 and owner.noise_scheduler.timesteps.tolist() == [2]
    undo()
    assert vars(owner) == before


def test_printed_it_is_a_table_of_its_terms():
    assert "clean before" in str(Multistep(((1.0, 0.0, 0.0),))).splitlines()[0]


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_target_that_is_a_sum_of_the_terms_is_found(weights):
    terms = [torch.tensor([row], dtype=torch.float64) for row in ((1.0, 0, 0, 2), (0, 1.0, 0, 1), (0, 0, 1.0, 1))]
    target = sum(w * term for w, term in zip(weights, terms, strict=True))
    assert solve(terms, target, (0.0, 0.0), ridge=1e-12) == pytest.approx(weights, abs=1e-6)


def test_where_the_terms_do_not_say_it_is_ddim():
    nothing = [torch.zeros(1, 4)] * 3
    assert solve(nothing, torch.ones(1, 4), (0.8, 0.6)) == pytest.approx((0.8, 0.6, 0.0))


def test_one_observation_that_went_elsewhere_decides_less_than_its_square():
    """Nine say that the target is the term, the tenth that it is twenty times the term: least squares says 2.9."""
    ones = torch.ones(10, 1)
    target = torch.tensor([1.0] * 9 + [20.0])[:, None]
    assert solve([ones, 0 * ones], target, (0.0, 0.0))[0] < 2.0 < (target.mean().item())


def fitted_and_even(timesteps=(9, 6, 3), rows=64):
    """Few fitted steps, few DDIM steps and all, on another noise than what was fitted on."""
    alphas = torch.linspace(0.95, 0.05, 10)
    grid, noise = tuple(range(9, -1, -1)), torch.randn(2, rows, 3, generator=torch.Generator().manual_seed(0))
    owner = Owner(MultistepScheduler(trained(alphas), grid, ddim(alphas, grid).weights), noise[0])
    with recorded(owner.noise_scheduler) as states:
        owner.run()
    solver = Fitter(owner, owner.run, states)(timesteps)
    owner.start = noise[1]
    dense, found = owner.run(), []
    for few in (solver, ddim(alphas, timesteps)):
        undo = few.apply(owner, timesteps)
        found.append((owner.run() - dense).square().mean().sqrt().item())
        undo()
    return states, found


def test_a_dense_run_is_recorded_at_every_timestep_and_at_its_end():
    states, _ = fitted_and_even()
    assert sorted(states) == [END, *range(10)]


def test_on_a_linear_denoiser_few_fitted_steps_end_where_all_steps_end():
    """Half of the sample is noise at every step: the end is a multiple of the beginning, which one weight says."""
    _, (fitted, even) = fitted_and_even()
    assert fitted < 1e-3 * even and even > 0.01


@pytest.mark.parametrize("timesteps", [(9, 4, 7), (9, 9), (10, 3)])
def test_timesteps_that_were_not_recorded_or_do_not_decrease_are_refused(timesteps):
    fitter = Fitter(None, print, dict.fromkeys([END, *range(10)], torch.zeros(1)))
    with pytest.raises(ScheduleError, match="must decrease, and be some of the 10 of the recorded run"):
        fitter(timesteps)


def test_fitting_leaves_the_policy_as_it_was():
    alphas, grid = torch.linspace(0.95, 0.05, 10), tuple(range(9, -1, -1))
    owner = Owner(MultistepScheduler(trained(alphas), grid, ddim(alphas, grid).weights), torch.ones(1, 3))
    with recorded(owner.noise_scheduler) as states:
        owner.run()
    before = owner.noise_scheduler
    Fitter(owner, owner.run, states)((9, 3))
    assert owner.noise_scheduler is before and "step" not in vars(before) and owner.num_inference_steps == 10
