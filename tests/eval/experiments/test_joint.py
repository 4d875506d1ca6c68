"""What tuning found becomes a cell that episodes are played with; the tables say what was measured."""

from dataclasses import asdict

from eval.setup.cells import Cell, dense
from eval.experiments.methods.joint import Found
from eval.experiments.methods.joint_report import closed_loop_table, draw, fidelity_table, paired_table

GRID = tuple(range(99, -1, -1))


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


def test_what_was_found_survives_being_stored():
    found = Found(dense(5, "DDIM"), 5.0, None, 0.02, 0.03)
    stored = {**asdict(found), "cell": asdict(found.cell)}
    assert Found(Cell(**stored.pop("cell")), **stored) == found


def test_a_pair_is_one_row_with_its_interval():
    (line,) = paired_table([{"name": "a", "minus": "b", "n": 8, "difference": [0.061, 0.028, 0.093]}])[2:]
    assert line == "| a | b | 8 | +0.061 [+0.028, +0.093] |"
