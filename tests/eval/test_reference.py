"""Is a way to be fast still the same policy? The instruments on tables and chunks whose answer is mental arithmetic."""

import json

import pytest
import torch

from eval.experiments.reference.instruments import INSTRUMENTS, correlations, draw_instruments, warned
from eval.experiments.reference.report import side_by_side, stored
from eval.experiments.reference.seam import halves, jump


def row(name, *, loss, energy=0.0, half_width=0.01, group="own steps"):
    return {
        "name": name,
        "group": group,
        "difference": [-loss, -loss - 0.05, -loss + 0.05],
        "energy": [energy, energy - half_width, energy + half_width],
        "shift": energy,
        "spread": 1 + energy,
        "seam": 1 + energy,
        "path_error": -energy,
    }


ITSELF = row("itself", loss=0.0)


def test_the_jump_is_between_the_last_action_and_the_next_first_one():
    before, after = torch.zeros(2, 3, 4, 1), torch.full((2, 3, 4, 1), 7.0)
    before[:, :, -1], after[:, :, 0] = 1.0, 3.0
    assert jump(before, after) == pytest.approx(2.0)


def test_pairs_are_split_into_the_earlier_and_the_later_observations():
    before, after = halves({"state": torch.tensor([1.0]), "after/state": torch.tensor([2.0])})
    assert before["state"].item() == 1.0
    assert after["state"].item() == 2.0


def test_an_instrument_that_grows_with_the_loss_has_rank_correlation_one_and_its_opposite_minus_one():
    table = [ITSELF, *(row(str(loss), loss=loss, energy=loss**2) for loss in (0.1, 0.2, 0.3))]
    found = correlations({"policy": table})
    assert found["energy distance"] == pytest.approx({"policy": 1, "mean": 1, "all": 1})
    assert found["error to the deterministic path"]["mean"] == pytest.approx(-1)


def test_a_policy_that_loses_the_same_in_every_way_has_no_rank_correlation():
    level = [ITSELF, row("a", loss=0.0, energy=0.1), row("b", loss=0.0, energy=0.2)]
    rising = [ITSELF, row("a", loss=0.0, energy=0.1), row("b", loss=0.1, energy=0.2)]
    found = correlations({"level": level, "rising": rising})["energy distance"]
    assert found["level"] is None
    assert found["mean"] == pytest.approx(1)


def test_the_warning_is_held_against_the_loss():
    table = [
        ITSELF,  # its interval ends at .01, the floor
        row("far and worse", loss=0.2, energy=0.05),
        row("far and as good", loss=0.0, energy=0.05),
        row("near and worse", loss=0.2, energy=0.015),
        row("near and as good", loss=0.0, energy=0.0),
    ]
    found = warned(table)
    assert (found.rightly, found.in_vain, found.missed) == (
        ("far and worse",),
        ("far and as good",),
        ("near and worse",),
    )
    assert found.calm == 1


def test_ways_that_several_policies_have_stand_side_by_side():
    def table(own, *rows):
        return [{**row, "sweeps": 4.0, "success": [own, own, own]} for row in (ITSELF, *rows)]

    few, sparse = row("few steps", loss=0.3), row("cache", loss=0.02)
    lines = side_by_side({"first": table(0.9, few, sparse), "second": table(0.8, row("few steps", loss=0.04))})
    assert lines[2] == "| the policy itself | | 0.900 | 0.800 | | |"
    assert "| few steps | 4.0 | **-0.300** | -0.040 | -0.170 | -0.300 |" in lines
    assert not any("cache" in line for line in lines)


def test_the_picture_of_the_instruments_has_a_panel_for_each(tmp_path):
    tables = {name: [ITSELF, row("a", loss=0.1, energy=0.1), row("b", loss=0.2, energy=0.2)] for name in ("one", "two")}
    draw_instruments(tmp_path / "instruments.png", tables)
    assert (tmp_path / "instruments.png").stat().st_size > 0
    assert len(INSTRUMENTS) == 5


def test_a_table_from_before_an_instrument_is_left_out(tmp_path):
    for name, table in (("old", [{"name": "itself"}]), ("new", [ITSELF])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.json").write_text(json.dumps(table))
    assert list(stored(tmp_path)) == ["new"]
