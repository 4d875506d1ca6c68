"""What a report says first: the heading, and which way is the fastest that loses little."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.measure.latency import Latency
from eval.play.rollout import EpisodeResult
from eval.report.narrative import heading, verdict
from eval.setup.cells import Cell, adaptive, dense

TWO, FOUR, BAC = dense(2, "DDIM"), dense(4, "DDIM"), adaptive(10, 5)


@dataclass(frozen=True)
class Toy:
    """Stand-in for a `Comparison`: how many of `n` episodes every cell wins, and how long its chunk takes [ms]."""

    wins: dict[Cell, int]
    milliseconds: dict[Cell, float]
    n: int = 200
    lacks: dict[Cell, int] = field(default_factory=dict)
    published: Cell = BAC
    few_step_cells: tuple[Cell, ...] = (TWO, FOUR)
    tuned_cells: tuple[Cell, ...] = ()
    settings: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(judged_by_score=False))

    @property
    def latencies(self):
        return {cell: Latency(ms, ms, 100 / ms, 20, 0, "wall") for cell, ms in self.milliseconds.items()}

    def results(self, cell):
        seeds = range(self.lacks.get(cell, 0), self.n)
        return [EpisodeResult(seed, seed < self.wins[cell], float(seed < self.wins[cell]), 9) for seed in seeds]


@pytest.fixture
def toy():
    return Toy({dense(): 200, TWO: 80, FOUR: 200, BAC: 200}, {dense(): 50, TWO: 2, FOUR: 4, BAC: 10})


def test_the_first_sentence_names_the_fastest_way_that_loses_little(toy):
    first = verdict(toy)[0]
    assert first.startswith(
        "Fastest whose interval leaves out a loss of 0.05: DDIM-4, 25.0 times faster than DDPM-100 by "
    )
    assert "success +0.000 [-0.0" in first and first.endswith("on 200 paired episodes.")


def test_a_way_that_wins_more_often_may_be_the_fastest(toy):
    toy.wins.update({dense(): 80, TWO: 200})
    assert "a loss of 0.05: DDIM-2, 50.0 times faster" in verdict(toy)[0]
    assert "success +0.600 [+0." in verdict(toy)[0]


def test_few_episodes_leave_no_loss_out(toy):
    assert verdict(replace(toy, n=20))[0] == "No faster way has an interval that leaves out a loss of 0.05."
    toy.wins.update({TWO: 20, FOUR: 20, BAC: 20})
    assert verdict(toy)[0] == "No faster way has an interval that leaves out a loss of 0.05."
    assert verdict(toy)[1].startswith("BAC S=10 n=5 is below DDPM-100: success -0.900 ")


def test_only_what_both_played_is_counted(toy):
    assert verdict(replace(toy, lacks={dense(): 3}))[0].endswith("on 197 paired episodes.")


def test_without_latencies_none_is_the_fastest(toy):
    toy.milliseconds.clear()
    assert verdict(toy)[0].startswith("BAC S=10 n=5 is not told apart from DDPM-100: ")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("pusht", "pusht"), ("copied/so101-dit", "so101-dit on pusht"), ("adroit", "adroit on pusht")],
)
def test_a_policy_that_is_not_named_after_its_task_is_named_beside_it(folder, expected):
    assert heading(SimpleNamespace(checkpoint=Path(folder), task="pusht")) == expected
