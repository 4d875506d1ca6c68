"""`bac.tune` on a policy that draws noise in every step: it is compared with itself."""

import pytest
import torch

import bac
from bac.tuning.batches import split
from bac.tuning.bench import Bench
from bac.tuning.machine import Machine
from bac.tuning.tuner import FINALISTS

OPTIONS = {"replay": False, "rounds": 2, "evaluations": 6, "progress": False}


@pytest.fixture(scope="module")
def drawn():
    """A policy that draws noise, tuned to half of its steps."""
    pytest.importorskip("lerobot")
    from tests.policies.models import observations, small_policy

    policy = small_policy(n_layer=1, noise_scheduler_type="DDPM")
    policy.diffusion.use_solver("DDPM", 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "fit", classmethod(lambda cls, *_: cls(0.0, 0.0, 0.9)))  # 5 of 8 sweeps in 4.5 s
        patch.setattr("bac.tuning.tuner.PESSIMISTIC", 0.0)
        return policy, bac.tune(policy, [observations(6)], target_latency_s=5.0, sweeps=(2, 5), **OPTIONS)


drawing = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.slow
@drawing
def test_a_policy_that_draws_noise_is_compared_with_itself_and_not_with_a_deterministic_path(drawn):
    policy, tuned = drawn
    families = {trial.family for trial in tuned.trials}
    assert families >= {
        "fewer steps, DDPM", "fewer steps, SDE-DPM-Solver++", "fewer steps, fitted ancestral",
        "fewer steps, DPM-Solver++", "fewer steps, fitted multistep", "together, taylor-1", "adaptive + bubbling",
    }  # fmt: skip
    assert tuned.quantity == "energy distance"
    assert tuned.denoising.measured.reference == "DDPMScheduler, 8 steps"
    affordable = sorted(trial.fit_error for trial in tuned.trials if trial.denoising.sweeps <= 5)
    assert tuned.chosen.fit_error in affordable[:FINALISTS]


@pytest.mark.slow
@drawing
def test_the_choice_is_the_best_of_a_second_look_with_other_noise(drawn):
    policy, tuned = drawn
    from tests.policies.models import observations

    fit, held_out = split([observations(6)])
    bench = Bench(policy, {"fit": fit, "held out": held_out})
    affordable = [trial for trial in tuned.trials if trial.denoising.sweeps <= 5]
    best = sorted(affordable, key=lambda trial: trial.typical_error)[:FINALISTS]
    assert min(best, key=lambda trial: bench.second_look(trial.denoising)) is tuned.chosen


@pytest.mark.slow
@drawing
def test_the_report_says_how_far_the_deterministic_path_and_the_choice_are(drawn):
    text = str(drawn[1])
    assert "errors: energy distance" in text
    assert "deterministic path at all timesteps: energy distance" in text
    assert "choice: energy distance" in text and "DDPMScheduler, 8 steps" in text


@pytest.mark.slow
@drawing
def test_the_policy_itself_is_no_farther_from_itself_than_chance(drawn):
    policy, _ = drawn
    from tests.policies.models import observations

    bench = Bench(policy, {"fit": [observations(4)], "held out": [observations(12)]})
    floor = bench.distance(bench.dense)
    assert floor.low < 0 < floor.high and floor.spread == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
@drawing
@pytest.mark.parametrize("kind", ["DDPM", "SDE-DPM-Solver++", "fitted ancestral"])
def test_a_replay_draws_what_its_interceptors_draw(drawn, kind):
    policy, _ = drawn
    from tests.policies.models import observations

    bench = Bench(policy, {"fit": [observations(4)], "held out": [observations(2)]})
    timesteps = tuple(bench.grid[place] for place in (0, 3, 6))
    solver = bench.ancestral(timesteps) if kind == "fitted ancestral" else kind
    found = []
    for replay in (False, bac.Replay(record="first")):
        generator = torch.Generator().manual_seed(5)
        bac.wrap(policy, bac.Denoising(solver, timesteps), replay=replay)
        chunks = [policy.predict_action_chunk(observations(2), generator=generator) for _ in range(3)]
        found.append((*chunks, torch.randn(1, generator=generator)))
        replayed = bac.describe(policy).plans if replay else ()
        bac.unwrap(policy)
    assert replayed and all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not torch.equal(found[0][0], found[0][1])  # noise is drawn anew for every chunk
