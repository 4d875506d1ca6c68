"""What the demo tells, on ways whose numbers are mental arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.measure.latency import Latency
from eval.play.rollout import EpisodeResult
from eval.setup.cells import dense
from eval.showcase.telling import draw, plain, recommendation, table
from eval.showcase.ways import Way

HALF, ALL = [True, False] * 10, [True] * 20


def way(title: str, cell, ms: float, *, ours: bool = True) -> Way:
    return Way(title, cell, Latency(ms, ms, 100 / ms, 10, 0, "wall"), ours)


def episodes(successes) -> list[EpisodeResult]:
    return [EpisodeResult(seed, won, float(won), 10) for seed, won in enumerate(successes)]


class Told:
    """A policy that takes 100 ms, a fitted way of 4 ms that does as well, and a rival of 4 ms."""

    def __init__(self, rival_wins=ALL) -> None:
        settings = SimpleNamespace(
            judged_by_score=False, checkpoint=Path("policies/checkpoints/toy"), tuned="bac.json", n=20
        )
        self.comparison = SimpleNamespace(settings=settings, control_hz=80.0)
        self.ways = (
            way("dense", dense(), 100.0, ours=False),
            way("fitted", dense(4, "UniPC"), 4.0),
            way("rival", dense(4, "DDIM"), 4.0, ours=False),
        )
        self.recommended = self.ways[1]
        self._wins = {"dense": ALL, "fitted": ALL, "rival": rival_wins}

    def lock_step(self, way):
        return episodes(self._wins[way.title])

    def real_time(self, way):
        return episodes(HALF)


def test_the_table_has_rates_and_times_over_the_policy_as_it_is():
    header, own, fitted, _ = table(Told())
    assert header[2] == "success, world goes on at 80 Hz"
    assert own[3:] == ("100.0 ms", "10.0", "1.0x")
    assert fitted[1].startswith("1.00 [") and fitted[2].startswith("0.50 [")
    assert fitted[3:] == ("4.0 ms", "250.0", "25.0x")


def test_columns_of_the_terminal_are_aligned():
    lines = plain(list(table(Told()))).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_the_recommendation_says_what_it_costs_what_it_gives_and_what_to_type():
    first, line, *_ = recommendation(Told())
    assert "success 1.00 against 1.00" in first and "4 ms against 100 ms, 25 times faster" in first
    assert line.strip() == 'bac.wrap(policy, bac.load("policies/checkpoints/toy/bac.json"))'


def test_a_rival_that_does_as_well_is_named():
    assert "DDIM-4 does as well" in recommendation(Told())[-1]


def test_a_rival_that_loses_is_not_named():
    assert len(recommendation(Told(rival_wins=HALF))) == 2


def test_both_worlds_are_drawn(tmp_path):
    draw(tmp_path / "ways.png", Told())
    assert (tmp_path / "ways.png").stat().st_size > 0


@pytest.mark.parametrize("won", [ALL, HALF])
def test_the_recommendation_never_claims_more_than_was_played(won):
    told = Told()
    told._wins["fitted"] = won
    assert f"success {sum(won) / 20:.2f} against 1.00" in recommendation(told)[0]
