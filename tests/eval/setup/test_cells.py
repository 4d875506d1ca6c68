"""What a method is, and how its schedule comes from a calibration."""

import json

import numpy as np
import pytest

import bac
from bac.caching.block import BlockKind
from bac.caching.calibration import Calibration
from bac.fingerprint import Fingerprint
from eval.setup.cells import Cell, adaptive, build_denoising, core_cells, dense, equal_cost_cells, holding, together


@pytest.fixture
def calibration() -> Calibration:
    """Two layers, 13 steps; similarity falls with distance; the first layer's blocks are the most fragile."""
    kinds = list(BlockKind)[:3]
    blocks = tuple(bac.Block(f"layers.{i}.{kind.value}", kind, i) for i in range(2) for kind in kinds)
    steps = np.arange(13)
    similarity = np.stack([np.exp(-np.abs(steps[:, None] - steps) / (3 + block.layer)) for block in blocks])
    error = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    twice = np.stack([similarity, similarity])
    return Calibration(
        blocks, 13, 2, similarity, 0 * similarity, twice, error, 0 * error, np.stack([error, error]), Fingerprint()
    )


def schedule_of(cell: Cell, calibration: Calibration) -> bac.Schedule:
    return build_denoising(cell, calibration).schedule


def test_dense_puts_nothing_on(calibration):
    assert build_denoising(dense(), calibration) == bac.Denoising()


def test_uniform_updates_every_block_at_even_steps(calibration):
    schedule = schedule_of(together("uniform", 3, num_steps=13), calibration)
    assert set(schedule.update_steps.values()) == {(0, 4, 8)}


def test_bac_is_acs_plus_bubbling_and_forced_steps(calibration):
    alone = schedule_of(adaptive(3, 0, num_steps=13), calibration)
    bubbled = schedule_of(adaptive(3, 2, num_steps=13), calibration)
    forced = schedule_of(adaptive(3, 2, num_steps=13, force_last=2), calibration)
    assert alone.num_updates_total == 18
    assert np.all(bubbled.mask[alone.mask])
    fragile, rest = alone.block_names[:2], alone.block_names[2:]
    downstream = set(alone.update_steps[rest[0]]) | set(alone.update_steps[rest[-1]])  # the two feed-forward blocks
    for name in fragile:
        assert set(bubbled.update_steps[name]) == set(alone.update_steps[name]) | downstream
    assert all(bubbled.update_steps[name] == alone.update_steps[name] for name in rest)
    assert np.all(forced.mask[11:])
    assert np.array_equal(forced.mask[:11], bubbled.mask[:11])


def test_rivals_get_bacs_true_cost_not_its_s():
    schedule = bac.Schedule(20, {"a": tuple(range(7)), "b": tuple(range(10))})  # 8.5 sweeps
    assert [(cell.cache, cell.num_updates) for cell in equal_cost_cells(bac.Denoising(schedule=schedule))] == [
        ("uniform", 8),
        ("unified", 8),
    ]


def test_the_core_is_what_the_comparison_promises():
    assert [cell.name for cell in core_cells()] == [
        "DDPM-100",
        "BAC S=10 n=5",
        "ACS S=10, no BUA",
        "BAC S=10 n=5, last 3 forced",
        "DDIM-100",
        "BAC S=10 n=5 on DDIM-100",
    ]


def test_the_title_does_not_make_another_cell():
    assert Cell("a").describe() == Cell("b").describe()
    assert adaptive(10, 5, solver="DDIM").sampler == dense(100, "DDIM")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"solver": "Euler"}, "solver: must be one of DDPM, .*, got 'Euler'"),
        ({"cache": "taylor", "num_updates": 3}, "cache: must be one of"),
        ({"cache": "bac"}, "num_updates=None"),
        ({"num_updates": 3}, "dense takes none"),
        ({"cache": "acs", "num_updates": 3, "num_bubbled": 2}, "needs cache=bac"),
        ({"timestep_spacing": "even"}, "timestep_spacing: must be one of"),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Cell("x", **values)


def test_results_of_before_keep_their_key():
    assert set(dense().describe()) == {
        "solver",
        "num_steps",
        "cache",
        "num_updates",
        "num_bubbled",
        "force_last",
        "timestep_spacing",
    }


PLACED = bac.Denoising("DPM-Solver++", (90, 40, 7))


def test_a_cell_holds_what_is_put_on_and_makes_its_steps():
    cell = holding(PLACED)
    assert (cell.name, cell.steps, cell.is_dense) == ("DPM-Solver++-3", 3, False)
    assert cell.sampler == dense(100, "DDIM")
    assert cell.describe()["denoising"]["timesteps"] == [90, 40, 7]
    assert "fingerprint" not in cell.describe()["denoising"]


def test_a_cell_survives_json():
    for cell in (holding(PLACED, "three steps"), adaptive(10, 5), dense(4, "DDIM", "trailing")):
        assert Cell.from_document(json.loads(json.dumps(cell.to_document()))) == cell


def test_a_cell_has_a_recipe_or_a_denoising():
    with pytest.raises(ValueError, match="a cell has one of the two"):
        Cell("both", "DDIM", 10, "acs", 3, denoising=PLACED)
