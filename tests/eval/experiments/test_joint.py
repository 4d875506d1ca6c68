"""What tuning found becomes a cell that episodes are played with; the tables say what was measured."""

import json
from pathlib import Path

import pytest

import bac
from bac.solvers import Multistep
from eval.experiments.methods.found import Found
from eval.experiments.methods.joint_report import closed_loop_table, draw, fidelity_table, paired_table
from eval.setup.cells import dense, holding

RESULTS = Path(__file__).parents[3] / "results" / "methods"
FITTED = bac.Denoising(Multistep(((0.5, 0.5, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0))), (60, 5))


def row(name, sweeps, error, **rest):
    errors = {"typical": error, "error": error, "fit_error": None}
    return {"name": name, "sweeps": sweeps, **errors, "latency_ms": 5.0, **rest}


def test_the_table_is_in_order_of_sweeps_then_of_error():
    rows = [
        row(name, sweeps, error, cell={"num_steps": 9})
        for name, sweeps, error in (("b", 5, 0.2), ("a", 5, 0.1), ("c", 4, 0.3))
    ]
    assert [line.split("|")[1].strip() for line in fidelity_table(rows)[2:]] == ["c", "a", "b"]


def test_the_closed_loop_s_intervals_are_in_its_table():
    part = [0.5, 0.25, 0.75]
    (line,) = closed_loop_table([{"name": "a", "n": 8, "success": part, "score": part, "difference": part}])[2:]
    assert line == "| a | 8 | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] |"


def test_the_front_is_drawn_with_lines_missing(tmp_path):
    cell = {"num_steps": 5, "solver": "DDIM"}
    draw(tmp_path / "front.png", [row("DDIM-5 leading", 5, 0.02, cell=cell)], title="one point")
    assert (tmp_path / "front.png").stat().st_size > 10_000


@pytest.mark.parametrize("task", ["assembly-v3", "pick-out-of-hole-v3", "pusht"])
def test_a_table_in_results_can_be_drawn_and_written_again(tmp_path, task):
    rows = json.loads((RESULTS / task / "table.json").read_text())["fidelity"]
    draw(tmp_path / "front.png", rows, title=task)
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert len(fidelity_table(rows)) == 2 + len(rows)


@pytest.mark.parametrize("cell", [dense(5, "DDIM"), holding(FITTED, "fitted multistep tuned, 2 sweeps")])
def test_what_was_found_survives_being_stored(cell):
    found = Found(cell, 5.0, None, 0.02, 0.03)
    assert Found.from_document(json.loads(json.dumps(found.to_document()))) == found


def test_a_row_says_the_solver_and_the_steps_that_run_not_those_below():
    row = Found(holding(FITTED, "tuned"), 2.0, None, 0.02, 0.03).to_row(7.0)
    assert (row["name"], row["latency_ms"], row["sweeps"]) == ("tuned", 7.0, 2.0)
    assert (row["cell"]["solver"], row["cell"]["num_steps"]) == ("fitted multistep", 2)
    own = Found(dense(5, "DDIM"), 5.0, None, 0.02, 0.03).to_row(None)["cell"]
    assert (own["solver"], own["num_steps"]) == ("DDIM", 5)


def test_a_pair_is_one_row_with_its_interval():
    (line,) = paired_table([{"name": "a", "minus": "b", "n": 8, "difference": [0.061, 0.028, 0.093]}])[2:]
    assert line == "| a | b | 8 | +0.061 [+0.028, +0.093] |"
