"""The script that measures LeRobot's policies on a GPU goes through every line on a CPU, at tiny sizes."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("lerobot")

from eval.experiments.lerobot.full_sizes import SIZES, tiny_smolvla
from eval.experiments.lerobot.gpu import OnGPU, measure_all

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_the_dry_run_measures_every_row_and_says_which_a_cpu_cannot_have(tmp_path):
    measure_all(["smolvla"], "cpu", tmp_path, sizes="tiny", rounds=1)
    found = json.loads((tmp_path / "lerobot.json").read_text())["policies"]["smolvla"]
    rows = {row["name"]: row for row in found["rows"]}
    refused = [name for name, row in rows.items() if row["why_not"]]
    assert refused == ["replayed, tf32", "3 own steps, replayed, tf32"]
    assert all("needs an NVIDIA GPU" in rows[name]["why_not"] for name in refused)
    assert rows["replayed"]["action_error"] == 0
    assert rows["replayed, bf16"]["action_error"] > 0
    assert rows["3 own steps, replayed"]["operators"] < rows["BAC S=5 n=2, replayed"]["operators"]
    assert sum(found["stages_ms"].values()) > 0
    text = (tmp_path / "lerobot.md").read_text()
    assert text.count("| replayed") == 3 and "An untouched chunk by stage [ms]: " in text


def test_rows_that_the_time_does_not_allow_are_named(tmp_path):
    measure_all(["smolvla"], "cpu", tmp_path, sizes="tiny", rounds=1, limit_s=0.0)
    found = json.loads((tmp_path / "lerobot.json").read_text())["policies"]["smolvla"]
    assert {row["why_not"] for row in found["rows"]} == {"out of time"}


def test_copies_share_the_weights():
    case = OnGPU(tiny_smolvla("cpu").eval(), rounds=1)
    assert {id(weight) for weight in case._copy().parameters()} == {id(weight) for weight in case.policy.parameters()}


def test_every_size_has_the_same_policies():
    assert SIZES["full"].keys() == SIZES["tiny"].keys()
