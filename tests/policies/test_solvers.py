import diffusers
import pytest
import torch

from policies.diffusion_transformer.solvers import check_timesteps, make_noise_scheduler, set_timesteps
from tests.policies.models import small_config

CLEAN = torch.tensor([[[-0.9, 0.1, 0.5], [0.3, -0.2, 0.7]]])


def run(noise_scheduler, denoiser, seed=0):
    """One denoising run from seeded noise; returns the sample and the timesteps the denoiser saw."""
    generator = torch.Generator().manual_seed(seed)
    sample, seen = torch.randn(CLEAN.shape, generator=generator), []
    for timestep in noise_scheduler.timesteps:
        seen.append(int(timestep))
        sample = noise_scheduler.step(denoiser(sample, timestep), timestep, sample, generator=generator).prev_sample
    return sample, seen


def knows_the_actions(noise_scheduler):
    """A denoiser that always finds exactly the noise that hides `CLEAN`."""
    alphas = noise_scheduler.alphas_cumprod
    return lambda sample, t: (sample - alphas[t].sqrt() * CLEAN) / (1 - alphas[t]).sqrt()


@pytest.mark.parametrize("num_steps", [2, 3, 10, 26, 50, 99])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", ["DDPM", "DDIM", "DPM-Solver++", "DPM-Solver++ 1", "SDE-DPM-Solver++", "UniPC"])
def test_a_perfect_denoiser_is_asked_once_per_step_and_gives_the_actions(name, spacing, num_steps):
    noise_scheduler = make_noise_scheduler(small_config(), name, spacing)
    set_timesteps(noise_scheduler, num_steps)
    sample, seen = run(noise_scheduler, knows_the_actions(noise_scheduler))
    assert len(seen) == num_steps
    assert seen == sorted(seen, reverse=True)
    torch.testing.assert_close(sample, CLEAN, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 10, 20, 50, 100])
def test_ddim_is_diffusers_ddim_where_timesteps_are_evenly_spaced(num_steps):
    ours = make_noise_scheduler(small_config(), "DDIM", "leading")
    theirs = diffusers.DDIMScheduler.from_config(ours.config)
    results = []
    for noise_scheduler in (ours, theirs):
        set_timesteps(noise_scheduler, num_steps)
        results.append(run(noise_scheduler, lambda sample, t: sample.sin() * (t + 1) / 100))
    assert results[0][1] == results[1][1]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-6)


def test_ddim_hands_the_denoiser_the_noise_level_it_is_told():
    noise_scheduler = make_noise_scheduler(small_config(), "DDIM", "trailing")
    set_timesteps(noise_scheduler, 30)
    alphas, noise = noise_scheduler.alphas_cumprod, torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(0))
    sample = alphas[99].sqrt() * CLEAN + (1 - alphas[99]).sqrt() * noise
    for timestep in noise_scheduler.timesteps:
        expected = alphas[timestep].sqrt() * CLEAN + (1 - alphas[timestep]).sqrt() * noise
        torch.testing.assert_close(sample, expected, rtol=0, atol=2e-3)  # alphas[99] is 2.4e-9
        sample = noise_scheduler.step(noise, timestep, sample).prev_sample


def test_ddpm_noise_has_the_posterior_variance():
    noise_scheduler = make_noise_scheduler(small_config(), "DDPM")
    set_timesteps(noise_scheduler, 100)
    alphas, t = noise_scheduler.alphas_cumprod, 40
    zero = torch.zeros(1, 1, 100_003)
    drawn = noise_scheduler.step(zero, t, zero, generator=torch.Generator().manual_seed(0)).prev_sample
    expected = (1 - alphas[t - 1]) / (1 - alphas[t]) * (1 - alphas[t] / alphas[t - 1])
    assert drawn.var().item() == pytest.approx(expected.item(), rel=0.02)


def test_clean_actions_outside_the_range_are_clipped():
    for name in ("DDPM", "DDIM"):
        noise_scheduler = make_noise_scheduler(small_config(), name)
        set_timesteps(noise_scheduler, 10)
        sample, _ = run(noise_scheduler, lambda sample, t: torch.full_like(sample, -100.0))
        assert sample.max() <= 1.0 + 1e-6


@pytest.mark.parametrize(
    ("name", "spacing", "message"),
    [("Euler", None, "solver: must be one of DDPM"), ("DDIM", "log", "timestep_spacing")],
)
def test_an_unknown_solver_is_named(name, spacing, message):
    with pytest.raises(ValueError, match=message):
        make_noise_scheduler(small_config(), name, spacing)


def test_a_number_of_steps_that_the_spacing_cannot_make_is_refused():
    noise_scheduler = make_noise_scheduler(small_config(), "DPM-Solver++", "linspace")
    with pytest.raises(ValueError, match="'linspace' spacing gives 99 distinct timesteps for 100 steps"):
        set_timesteps(noise_scheduler, 100)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", ["DDPM", "DDIM", "DPM-Solver++"])
def test_every_solver_clips_the_estimated_actions(name, spacing):
    noise_scheduler = make_noise_scheduler(small_config(), name, spacing)
    set_timesteps(noise_scheduler, 10)
    sample, _ = run(noise_scheduler, lambda sample, timestep: torch.zeros_like(sample))
    assert sample.abs().max() <= 1.0  # a denoiser that sees no noise at timestep 99 implies actions of 1e4


@pytest.mark.parametrize("name", ["DDPM", "DDIM", "DPM-Solver++", "SDE-DPM-Solver++"])
def test_a_perfect_denoiser_gives_the_actions_at_any_timesteps(name):
    noise_scheduler = make_noise_scheduler(small_config(), name)
    set_timesteps(noise_scheduler, 4, (93, 40, 17, 2))
    sample, seen = run(noise_scheduler, knows_the_actions(noise_scheduler))
    assert seen == [93, 40, 17, 2]
    torch.testing.assert_close(sample, CLEAN, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["DDPM", "DDIM", "DPM-Solver++"])
def test_timesteps_that_are_those_of_a_spacing_change_nothing(name):
    own, given = (make_noise_scheduler(small_config(), name) for _ in range(2))
    set_timesteps(own, 10)
    set_timesteps(given, 10, own.timesteps.tolist())
    first, second = (run(solver, lambda sample, t: sample.sin() * (t + 1) / 100) for solver in (own, given))
    assert first[1] == second[1]
    torch.testing.assert_close(first[0], second[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "timesteps", "error"),
    [
        ("DDIM", (3, 5), r"must decrease, got \[3, 5\]"),
        ("DDIM", (), "must decrease"),
        ("DDIM", (100, 5), r"must be in 0\.\.99, got \[100, 5\]"),
        ("UniPC", (9, 5), "UniPC places its own"),
    ],
)
def test_timesteps_that_a_run_cannot_have_are_refused(name, timesteps, error):
    with pytest.raises(ValueError, match=error):
        check_timesteps(name, timesteps, 100)
