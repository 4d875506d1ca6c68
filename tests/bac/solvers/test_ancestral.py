"""The fitted ancestral solver: DDPM's own step where every timestep is kept, and exact where the truth is known."""

from __future__ import annotations

import pytest
import torch

import bac
from bac.errors import ScheduleError
from bac.solvers import Ancestral, Regression
from bac.solvers.fitting import END
from bac.solvers.multistep import level
from bac.solvers.regression import posterior

diffusers = pytest.importorskip("diffusers")

MEAN, DEVIATION, NUM_STEPS, ROWS = 0.3, 0.2, 20, 4000


def ddpm():
    return diffusers.DDPMScheduler(NUM_STEPS, beta_schedule="squaredcos_cap_v2", clip_sample=False)


def noise_in(sample, alpha):
    """The best prediction of the noise if actions are normal with `MEAN` and `DEVIATION`: linear in the sample."""
    total = alpha * DEVIATION**2 + 1 - alpha
    clean = MEAN + alpha**0.5 * DEVIATION**2 / total * (sample - alpha**0.5 * MEAN)
    return (sample - alpha**0.5 * clean) / (1 - alpha) ** 0.5


def run(scheduler, rows=ROWS, seed=0):
    """Final samples of a run from seeded noise, with the samples and outputs at every timestep, `[rows, 2, 3]`."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(rows, 2, 3, generator=generator)
    samples, outputs = {}, {}
    for timestep in scheduler.timesteps:
        output = noise_in(sample, float(scheduler.alphas_cumprod[timestep]))
        samples[int(timestep)], outputs[int(timestep)] = sample, output
        sample = scheduler.step(output, timestep, sample, generator=generator).prev_sample
    return sample, {**samples, END: sample}, outputs


@pytest.fixture(scope="module")
def regression():
    scheduler = ddpm()
    scheduler.set_timesteps(NUM_STEPS)
    _, samples, outputs = run(scheduler)
    return Regression(scheduler, samples, outputs)


def test_the_posterior_is_the_mean_and_the_noise_of_diffusers_ddpm():
    scheduler = ddpm()
    scheduler.set_timesteps(timesteps=[15, 9, 2])
    sample, output = torch.full((1, 1), 0.7), torch.full((1, 1), -0.4)
    now, later = (level(float(scheduler.alphas_cumprod[t])) for t in (15, 9))
    clean = (sample - now[1] * output) / now[0]
    (first, second, third), scale = posterior(now, later)
    drawn = torch.randn(1, 1, generator=torch.Generator().manual_seed(3))
    theirs = scheduler.step(output, torch.tensor(15), sample, generator=torch.Generator().manual_seed(3)).prev_sample
    torch.testing.assert_close(first * clean + second * output + third * sample + scale * drawn, theirs)


def test_with_every_timestep_kept_it_is_ddpm(regression):
    fitted = regression(range(NUM_STEPS - 1, -1, -1))
    for step, (row, drawn) in enumerate(zip(fitted.coefficients, fitted.scales, strict=True)):
        timestep = NUM_STEPS - 1 - step
        later = regression.levels[timestep - 1] if timestep else (1.0, 0.0)
        mean, scale = posterior(regression.levels[timestep], later)
        assert drawn == pytest.approx(scale if timestep else 0.0, rel=0.05)
        terms = (*regression.predicted[timestep], regression.samples[timestep])
        ours, theirs = (sum(c * term for c, term in zip(found, terms, strict=True)) for found in (row[:3], mean))
        if step:
            ours = ours + sum(c * term for c, term in zip(row[3:], regression.predicted[timestep + 1], strict=True))
        assert (ours - theirs).square().mean().sqrt() < 0.05 * scale + 0.01  # the terms are collinear: their sum counts


def test_few_steps_are_exact_on_normal_data(regression):
    """The dense chain is linear with normal noise, so its joint law of any timesteps is a regression and a rest."""
    timesteps = (19, 11, 4, 0)
    scheduler = ddpm()
    scheduler.set_timesteps(NUM_STEPS)
    dense, _, _ = run(scheduler, seed=1)
    fitted, _, _ = run(regression(timesteps).scheduler(ddpm(), timesteps), seed=2)
    assert fitted.mean().item() == pytest.approx(dense.mean().item(), abs=0.01)
    assert fitted.std().item() == pytest.approx(dense.std().item(), rel=0.03)


def test_no_noise_is_drawn_after_the_last_step(regression):
    fitted = regression((19, 9))
    assert fitted.scales[-1] == 0.0 < fitted.scales[0]


def test_where_the_next_sample_is_known_no_noise_is_drawn():
    """Every sample is what the terms say: three times the sample before."""
    samples = {7: torch.randn(50, 1, 2, generator=torch.Generator().manual_seed(0))}
    samples |= {3: 3 * samples[7], END: 9 * samples[7]}
    fitted = Regression(ddpm(), samples, {7: torch.zeros(50, 1, 2), 3: torch.zeros(50, 1, 2)})((7, 3))
    assert fitted.scales[0] == pytest.approx(0.0, abs=1e-2)


@pytest.mark.parametrize("timesteps", [(9, 19), (19, 19), (19, 77)])
def test_timesteps_that_were_not_recorded_are_refused(regression, timesteps):
    with pytest.raises(ScheduleError, match=r"timesteps: must decrease, and be some of the 20"):
        regression(timesteps)


def test_it_survives_its_file(tmp_path, regression):
    timesteps = (19, 9, 3)
    way = bac.Denoising(regression(timesteps), timesteps)
    way.save(tmp_path / "bac.json")
    assert bac.load(tmp_path / "bac.json") == way


@pytest.mark.parametrize("scales", [(), (0.1,), (0.1, -0.1), (0.1, float("nan")), (1e18, 0.0)])
def test_scales_that_cannot_be_drawn_are_refused(scales):
    with pytest.raises(ScheduleError, match=r"scales: must|keep samples below 1e\+18"):
        Ancestral(((1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)), scales)


def test_it_prints_its_noise():
    rows = (1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)
    assert str(Ancestral(rows, (0.25, 0.0))).splitlines()[1].endswith("0.2500")
