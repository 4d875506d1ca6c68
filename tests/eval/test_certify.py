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
    from eval.setup.cells import Cell
    from eval.certify import Subject, certify

    options = SimpleNamespace(quantity="success", first_seed=3_000_000, max_n=max_n, batch=4)
    subject = Subject(Cell("one of two steps", "DDIM", 2), schedule, schedule)
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
    assert bac.Schedule.load(tmp_path / "bac.json") == schedule
    assert len((settings.folder / "certify.jsonl").read_text().splitlines()) == 2 * 8


def test_too_few_pairs_leave_it_undecided(settings, schedule, tmp_path):
    certificate = run(settings, schedule, tmp_path, max_n=5)
    assert (certificate.verdict, certificate.n) == ("undecided", 5)


def test_a_tuned_policy_is_certified_with_the_solver_it_was_tuned_to(settings, tmp_path):
    from bac import tuning
    from bac.certificate import Certificate
    from bac.denoising import fewer_steps
    from eval.setup.cells import Cell, running
    from eval.certify import certify, stored_subject
    from eval.measure.action_error import action_chunks

    policy = settings.load_policy().policy
    solver = tuning.Multistep(((1.0, 0.5, 0.0), (0.9, 0.3, 0.1, 0.1, -0.1)))
    candidate = fewer_steps(solver, (90, 40), (0, 1)).signed(policy)
    tuning.save(candidate, tmp_path / "chosen.json")
    subject = stored_subject(tmp_path / "chosen.json", Cell("ignored", "DDPM", 2))
    observation = {name: torch.zeros(1, 2, *feature.shape) for name, feature in policy.config.input_features.items()}
    with running(policy, subject.cell, subject.schedule):
        played = action_chunks(policy, observation, num_draws=1)
    undo = candidate.put_on(policy, executor="interpret")
    assert torch.equal(played, action_chunks(policy, observation, num_draws=1))
    undo()

    options = SimpleNamespace(quantity=None, first_seed=3_000_000, max_n=2, batch=2)
    certificate = certify(settings, subject, tmp_path, margin=0.5, confidence=0.95, options=options)
    assert (certificate.quantity, certificate.method) == ("score", candidate.name)
    assert tuning.load(tmp_path / "bac.json") == candidate
    assert Certificate.beside(tmp_path / "bac.json") == certificate


@pytest.mark.parametrize("estimator", ["hold", "taylor-1"])
def test_what_stands_in_for_a_block_tells_episodes_apart(settings, schedule, estimator, tmp_path):
    from eval.setup.cells import Cell
    from eval.certify import stored_subject

    replace(schedule, estimator=estimator).save(tmp_path / "bac.json")
    described = stored_subject(tmp_path / "bac.json", Cell("DDIM-2", "DDIM", 2)).cell.describe()
    assert described.get("estimator", "hold") == estimator


@pytest.mark.parametrize("tuned", [False, True])
def test_what_leaves_the_policy_its_own_solver_is_run_with_the_configured_one_and_its_spacing(
    schedule, tuned, tmp_path
):
    from bac import tuning
    from eval.setup.cells import Cell
    from eval.certify import stored_subject

    path = tmp_path / "bac.json"
    if tuned:
        tuning.save(tuning.Candidate("together", 2, schedule=schedule), path)
    else:
        schedule.save(path)
    cell = stored_subject(path, Cell("its own", "DDPM", 2, timestep_spacing="trailing")).cell
    assert (cell.solver, cell.num_steps, cell.timestep_spacing) == ("DDPM", 2, "trailing")
    assert cell.name == f"{path} on DDPM-2 trailing"
