"""What `bac.tune` chose is a row of a table, and the other way round."""

import pytest

from bac import Schedule
from bac.tuning import SOLVERS, Candidate, Multistep
from eval.candidates import as_candidate, as_cell
from eval.cells import Cell

FITTED = Candidate("fewer steps", 2, Multistep(((1.0, 0.5, 0.0), (0.9, 0.3, 0.1, 0.1, -0.1))), (90, 40))
SECOND_ORDER = Candidate("fewer steps", 2, SOLVERS[1], (90, 40))
CACHED = Candidate("together", 2, SOLVERS[0], (90, 40), Schedule(2, {"a": (0,), "b": (0,)}, estimator="taylor-1"))


@pytest.mark.parametrize("candidate", [FITTED, SECOND_ORDER, CACHED])
def test_there_and_back_nothing_is_lost(candidate):
    assert as_candidate(as_cell(candidate, "a row"), candidate.schedule) == candidate


def test_a_cached_row_updates_all_blocks_where_the_candidate_does():
    cell = as_cell(CACHED, "a row")
    assert (cell.cache, cell.update_steps, cell.estimator) == ("placed", (0,), "taylor-1")


def test_steps_of_their_own_per_block_are_no_row():
    apart = Candidate("acs", 2, SOLVERS[0], (90, 40), Schedule(2, {"a": (0,), "b": (0, 1)}))
    with pytest.raises(ValueError, match="its blocks update at different steps"):
        as_cell(apart, "a row")


@pytest.mark.parametrize("cell", [Cell("DDIM-4", "DDIM", 4), Cell("UniPC", "UniPC", 2, timesteps=(90, 40))])
def test_a_row_that_no_file_can_hold_is_refused(cell):
    with pytest.raises(ValueError, match=f"{cell.name}: .* is not a way to denoise that bac.json holds"):
        as_candidate(cell, None)
