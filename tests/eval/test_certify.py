"""A tiny random policy, which never succeeds, certified against itself with a cache."""

from types import SimpleNamespace

import pytest

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
    from eval.cells import Cell
    from eval.certify import certify

    options = SimpleNamespace(quantity="success", first_seed=3_000_000, max_n=max_n, batch=4)
    cell = Cell("one of two steps", "DDIM", 2)
    return certify(settings, cell, schedule, folder, margin=margin, confidence=0.95, options=options)


def test_it_stops_at_the_verdict_and_lies_beside_its_schedule(settings, schedule, tmp_path):
    import bac
    from bac.certificate import Certificate

    certificate = run(settings, schedule, tmp_path)
    # Both policies fail in every pair, and each pair doubles the highest stakes' wealth. The pairs are played in fours.
    assert (certificate.verdict, certificate.n, certificate.difference) == ("shown", 7, 0.0)
    assert certificate.low >= -0.5
    assert Certificate.beside(tmp_path / "bac.json") == certificate
    assert bac.Schedule.load(tmp_path / "bac.json") == schedule
    assert len((settings.folder / "certify.jsonl").read_text().splitlines()) == 2 * 8


def test_too_few_pairs_leave_it_undecided(settings, schedule, tmp_path):
    certificate = run(settings, schedule, tmp_path, max_n=5)
    assert (certificate.verdict, certificate.n) == ("undecided", 5)
