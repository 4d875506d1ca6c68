"""What `bac.tune` chose is a row of a table, and the other way round."""

import json
from dataclasses import asdict

import pytest

from bac import Schedule
from bac.tuning import SOLVERS, Candidate, Multistep
from bac.denoising import together
from eval.setup.candidates import as_candidate, as_cell
from eval.setup.cells import Cell

GRID = tuple(range(99, -1, -1))
FITTED = Candidate("fewer steps", 2, Multistep(((1.0, 0.5, 0.0), (0.9, 0.3, 0.1, 0.1, -0.1))), (90, 40))
SECOND_ORDER = Candidate("fewer steps", 2, SOLVERS[1], (90, 40))
CACHED = Candidate("together", 2, SOLVERS[0], (90, 40), Schedule(2, {"a": (0,), "b": (0,)}, estimator="taylor-1"))


@pytest.mark.parametrize("candidate", [FITTED, SECOND_ORDER, CACHED])
def test_there_and_back_nothing_is_lost(candidate):
    assert as_candidate(as_cell(candidate, "a row"), candidate.schedule) == candidate


def test_fewer_steps_are_a_dense_row_at_their_timesteps():
    assert as_cell(SECOND_ORDER, "tuned") == Cell("tuned", "DPM-Solver++", 2, timesteps=(90, 40))


def test_a_cached_row_updates_all_blocks_where_the_candidate_does():
    cell = as_cell(together(SOLVERS[0], GRID, (90, 95), ("ffn",), "taylor-1", stride=3), "cached")
    assert (cell.cache, cell.timesteps, cell.update_steps) == ("placed", (9, 6, 4, 3, 0), (0, 2))
    assert cell.estimator == "taylor-1"


def test_a_fitted_row_keeps_its_weights_in_json():
    cell = as_cell(FITTED, "fitted")
    stored = json.loads(json.dumps(asdict(cell)))
    assert Cell(**stored) == cell and cell.describe()["weights"] == [[1.0, 0.5, 0.0], [0.9, 0.3, 0.1, 0.1, -0.1]]


def test_steps_of_their_own_per_block_are_no_row():
    apart = Candidate("acs", 2, SOLVERS[0], (90, 40), Schedule(2, {"a": (0,), "b": (0, 1)}))
    with pytest.raises(ValueError, match="its blocks update at different steps"):
        as_cell(apart, "a row")


@pytest.mark.parametrize("cell", [Cell("DDIM-4", "DDIM", 4), Cell("UniPC", "UniPC", 2, timesteps=(90, 40))])
def test_a_row_that_no_file_can_hold_is_refused(cell):
    with pytest.raises(ValueError, match=f"{cell.name}: .* is not a way to denoise that bac.json holds"):
        as_candidate(cell, None)
