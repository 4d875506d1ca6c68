from __future__ import annotations

import pytest
import torch

from eval.experiments.lerobot import experiment
from eval.experiments.lerobot.experiment import RowMaker, speed_rows, table
from eval.measure.latency import measure
from tests.lerobot import models

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_rows_stand_beside_the_dense_policy_and_say_what_they_compute(monkeypatch):
    monkeypatch.setitem(experiment.POLICIES, "smolvla", models.smolvla)
    monkeypatch.setattr(experiment, "observation", lambda policy: models.observation(1))
    maker = RowMaker("smolvla", num_steps=8)
    weights = {id(parameter) for parameter in maker.policy.parameters()}
    assert {id(parameter) for parameter in maker.copy().parameters()} == weights

    rows = speed_rows(maker)
    assert list(rows) == [
        "dense",
        "hoisted",
        "dense replayed",
        "BAC 50%",
        "BAC 50% replayed",
        "4 of 8 steps",
        "BAC 30%",
        "BAC 30% replayed",
        "2 of 8 steps",
    ]
    assert rows["BAC 50%"].share <= 0.5 and rows["2 of 8 steps"].share == 0.25
    assert rows["BAC 30% replayed"].operators < rows["BAC 50% replayed"].operators < rows["dense replayed"].operators
    with torch.inference_mode():
        chunks = [rows[name].call() for name in ("dense", "2 of 8 steps")]
    assert chunks[0].shape == chunks[1].shape

    latencies = measure({name: row.call for name, row in rows.items()}, rounds=1, warmup=0, progress=False)
    assert [line.split(" | ")[0].strip("| ") for line in table(rows, latencies)][2:] == list(rows)
