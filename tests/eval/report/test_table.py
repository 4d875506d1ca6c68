"""The table: keys, pairing, formats."""

import pytest

from eval.measure.latency import Latency
from eval.play.rollout import EpisodeResult
from eval.report.table import make_row, markdown_table, paired_difference, plain_table, table_json
from eval.setup.cells import adaptive, dense


def _episodes(successes: str) -> list[EpisodeResult]:
    return [EpisodeResult(seed, mark == "#", float(mark == "#"), 100) for seed, mark in enumerate(successes)]


DENSE, CACHED = _episodes("########.."), _episodes("#####.....")


def _rows():
    common = {"judged_by_score": False, "action_error": None}
    slow, fast = Latency(400.0, 410.0, 1.0, 9, 0, "wall"), Latency(100.0, 120.0, 4.0, 9, 1, "wall")
    return [
        make_row(dense(), "t", DENSE, None, latency=slow, flops_ratio=1.0, sweeps=100.0, **common),
        make_row(adaptive(10, 5), "t", CACHED, DENSE, latency=fast, flops_ratio=5.9, sweeps=14.6, **common),
        make_row(dense(14, "DDIM"), "t", [], DENSE, latency=None, flops_ratio=7.1, sweeps=14.0, **common),
    ]


def test_a_row_holds_success_its_interval_and_the_paired_difference():
    first, second, third = table_json(_rows())
    assert (first["n"], first["success"], first["paired_diff"]) == (10, 0.8, None)
    assert (second["success"], second["paired_diff"], second["speedup"]) == (0.5, pytest.approx(-0.3), 4.0)
    assert second["paired_low"] < -0.3 < second["paired_high"]
    assert (third["n"], third["success"], third["latency_p50_ms"]) == (0, None, None)


def test_pairs_are_made_by_seed():
    shuffled = CACHED[::-1]
    assert paired_difference(shuffled, DENSE, judged_by_score=False) == paired_difference(
        CACHED, DENSE, judged_by_score=False
    )
    assert paired_difference(CACHED[:1], DENSE, judged_by_score=False) is None


def test_markdown_derives_the_rates_from_the_latency():
    table = markdown_table(_rows(), num_actions=8, judged_by_score=False, realtime={"DDPM-100": "0.1"})
    lines = table.splitlines()
    assert len(lines) == 5
    assert "| 100.0 / 120.0 | 10.0 | 80 | 4.00x | 5.9x | 14.6 |" in lines[3]
    assert "| reference |" in lines[2]
    assert lines[2].endswith("| 0.1 |")
    assert len({line.count("|") for line in lines}) == 1


def test_the_terminal_table_is_aligned():
    lines = plain_table(_rows(), judged_by_score=False).splitlines()
    assert len({len(line) for line in lines}) == 1
