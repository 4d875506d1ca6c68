"""An export in closed loop: what is compared, and what is refused before anything is played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import bac
from bac.errors import MismatchError
from bac.exported import Card, ExportedPolicy, Noise, Port
from eval.play import exported
from eval.play.exported import Player, agreement, agreement_table, as_loaded, play_in_turn
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, EpisodeResult
from tests.eval.conftest import CountingWorld

CARD = Card(
    "onnx", "a.Policy", "fitted", "cpu", (Port("observation.state", (1, 1, 1), "float32", "m", has_window=True),),
    (Noise("noise", (1, 1, 3, 1), "float32", "normal"),), Port("action", (1, 3, 1), "float32", "m"), {}, 1, 3, {}, 0,
    {"weights": "abc", "policy_postprocessor.json": "0"}, {}, {},
)  # fmt: skip


def step(size: float) -> ExportedPolicy:
    """An export whose every action goes so far."""
    return ExportedPolicy(CARD, lambda _: np.full((1, 3, 1), size, np.float32))


def test_every_player_meets_the_same_worlds_and_finished_episodes_are_kept(tmp_path):
    log, pool = EpisodeLog(tmp_path / "episodes.jsonl"), EnvPool(CountingWorld)
    players = {"replay": Player(as_loaded(step(0.1)), "a"), "policy.onnx": Player(as_loaded(step(0.01)), "b")}
    first = play_in_turn(players, pool, range(3), log)
    assert [result.num_control_steps for result in first["replay"]] == [10, 10, 10]
    assert [round(result.score, 2) for result in first["policy.onnx"]] == [0.23, 0.24, 0.25]
    again = play_in_turn({name: Player(None, one.key) for name, one in players.items()}, pool, range(3), log)
    assert again == first


def test_scores_are_compared_pair_by_pair():
    def played(*scores: float) -> list[EpisodeResult]:
        return [EpisodeResult(seed, False, score, 9) for seed, score in enumerate(scores)]

    rows = agreement({"replay": played(0.5, 0.6), "policy.onnx": played(0.5, 0.4)})
    assert [row["same_score"] for row in rows] == [2, 1]
    assert rows[1]["difference"]["value"] == pytest.approx(-0.1)
    assert "| replay | 2 | 0.5500 | +0.000 [+0.000, +0.000] | 2 |" in agreement_table(rows)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (replace(CARD, hashes={"weights": "other"}), "was made of other weights than policy=pusht has"),
        (replace(CARD, output=Port("action", (2, 3, 1), "float32", "m")), "takes 2 observations at once"),
        (replace(CARD, hashes={"weights": "abc"}), "holds no statistics"),
    ],
)
def test_an_export_that_cannot_stand_for_the_policy_is_refused(card, words, monkeypatch):
    monkeypatch.setattr(exported, "weights_hash", lambda _: "abc")
    with pytest.raises(MismatchError, match=words):
        exported._check(card, SimpleNamespace(), Path("folder"), "pusht")
    assert issubclass(MismatchError, bac.BacError)
