"""Resuming: what is on disk is found again, a torn line is not."""

import pytest

from eval.play.records import EpisodeLog
from eval.play.rollout import EpisodeResult
from eval.setup.keys import comparison_key

FIRST, SECOND = EpisodeResult(0, True, 1.0, 71), EpisodeResult(1, False, 0.25, 300)


def test_finished_episodes_are_found_again(tmp_path):
    log = EpisodeLog(tmp_path / "new" / "episodes.jsonl")
    log.add("a", FIRST)
    log.add("a", SECOND)
    log.add("b", FIRST)
    again = EpisodeLog(log.path)
    assert again.episodes("a") == {0: FIRST, 1: SECOND}
    assert again.episodes("b") == {0: FIRST}
    assert again.episodes("c") == {}


@pytest.mark.parametrize("torn", ['{"key": "a", "se', '{"key": "a", "seed": 2}'])
def test_a_torn_last_line_is_cut_off_and_played_again(tmp_path, torn):
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    log.add("a", FIRST)
    with log.path.open("a") as file:
        file.write(torn)
    again = EpisodeLog(log.path)
    assert again.episodes("a") == {0: FIRST}
    again.add("a", SECOND)
    assert EpisodeLog(log.path).episodes("a") == {0: FIRST, 1: SECOND}


def test_the_key_ignores_the_order_of_names_and_sees_every_value():
    assert comparison_key({"a": 1, "b": None}) == comparison_key({"b": None, "a": 1})
    keys = {comparison_key({"a": value}) for value in (1, 2, "1", None, 1.5)}
    assert len(keys) == 5
