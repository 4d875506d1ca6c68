"""A tiny random policy, which never succeeds, certified against itself with a cache."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.sim]


@pytest.fixture(scope="module")
def settings(pusht_settings):
    return pusht_settings(max_episode_steps=3)


@pytest.fixture(scope="module")
def schedule(settings):
    import bac
    from bac.adapters import find_host

    blocks = find_host(settings.load_policy().policy).blocks
    return bac.Schedule(2, {block.name: (0,) for block in blocks})


def run(settings, schedule, folder, *, max_n=50, margin=0.5):
    import bac
    from eval.certify import Subject, certify
    from eval.setup.cells import dense, holding

    options = SimpleNamespace(quantity="success", first_seed=3_000_000, max_n=max_n, batch=4)
    denoising = bac.Denoising(schedule=schedule)
    subject = Subject(holding(denoising, "one of two steps", on=dense(2, "DDIM")), denoising)
    return certify(settings, subject, folder, margin=margin, confidence=0.95, options=options)


def test_it_stops_at_the_verdict_and_lies_beside_its_schedule(settings, schedule, tmp_path):
    import bac
    from bac.certificate import Certificate

    certificate = run(settings, schedule, tmp_path)
    # Both policies fail in every pair, and each pair doubles the highest stakes' wealth. The pairs are played in fours.
    assert (certificate.verdict, certificate.n, certificate.difference) == ("shown", 7, 0.0)
    assert certificate.low >= -0.5
    header, *pairs = (tmp_path / "pairs.csv").read_text().splitlines()
    assert header == "seed,success of reference,success of method"
    assert pairs == [f"{seed},0,0" for seed in range(3_000_000, 3_000_007)]
    assert Certificate.beside(tmp_path / "bac.json") == certificate
    assert bac.load(tmp_path / "bac.json") == bac.Denoising(schedule=schedule)
    assert len((settings.folder / "certify.jsonl").read_text().splitlines()) == 2 * 8


def test_too_few_pairs_leave_it_undecided(settings, schedule, tmp_path):
    certificate = run(settings, schedule, tmp_path, max_n=5)
    assert (certificate.verdict, certificate.n) == ("undecided", 5)


def test_a_tuned_policy_is_certified_with_the_solver_it_was_tuned_to(settings, tmp_path):
    import bac
    from bac.adapters import find_host
    from bac.certificate import Certificate
    from bac.solvers import Multistep
    from eval.certify import certify, stored_subject
    from eval.measure.action_error import action_chunks
    from eval.setup.cells import dense, running

    policy = settings.load_policy().policy
    solver = Multistep(((1.0, 0.5, 0.0), (0.9, 0.3, 0.1, 0.1, -0.1)))
    denoising = bac.Denoising(solver, (90, 40), fingerprint=find_host(policy).fingerprint())
    denoising.save(tmp_path / "chosen.json")
    subject = stored_subject(tmp_path / "chosen.json", dense(2))
    observation = {name: torch.zeros(1, 2, *feature.shape) for name, feature in policy.config.input_features.items()}
    with running(policy, subject.cell, subject.denoising):
        played = action_chunks(policy, observation, num_draws=1)
    bac.wrap(policy, denoising, replay=False)
    assert torch.equal(played, action_chunks(policy, observation, num_draws=1))
    bac.unwrap(policy)

    options = SimpleNamespace(quantity=None, first_seed=3_000_000, max_n=2, batch=2)
    certificate = certify(settings, subject, tmp_path, margin=0.5, confidence=0.95, options=options)
    assert (certificate.quantity, certificate.method) == ("score", "fitted multistep, 2 steps")
    assert bac.load(tmp_path / "bac.json") == denoising
    assert Certificate.beside(tmp_path / "bac.json") == certificate


@pytest.mark.parametrize("estimator", ["hold", "taylor-1"])
def test_the_estimator_tells_episodes_apart(schedule, estimator, tmp_path):
    import bac
    from eval.certify import stored_subject
    from eval.setup.cells import dense

    bac.Denoising(schedule=replace(schedule, estimator=estimator)).save(tmp_path / "bac.json")
    described = stored_subject(tmp_path / "bac.json", dense(2, "DDIM")).cell.describe()
    assert described["denoising"]["estimator"] == {"name": estimator}


@pytest.mark.parametrize("num_steps", [None, 2])
def test_a_file_without_a_solver_runs_with_the_configured_one_and_its_spacing(schedule, num_steps, tmp_path):
    import bac
    from eval.certify import stored_subject
    from eval.setup.cells import dense

    path = tmp_path / "bac.json"
    bac.Denoising(num_steps=num_steps, schedule=schedule).save(path)
    cell = stored_subject(path, dense(2, "DDPM", "trailing")).cell
    assert (cell.solver, cell.num_steps, cell.timestep_spacing) == ("DDPM", 2, "trailing")
    assert cell.name == f"{path} on DDPM-2 trailing"
