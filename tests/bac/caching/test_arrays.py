"""A calibration is read whole or refused, and opening one never runs code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bac
from bac.caching import arrays
from bac.caching.calibration import Calibration
from bac.errors import CalibrationError
from tests.bac.test_fuzz import calibration
from tests.crafted import ATTACKS, arm

zarr = pytest.importorskip("zarr")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    calibration().save(tmp_path / "bac.calibration.zarr")
    return tmp_path / "bac.calibration.zarr"


# Whole or refused


def chunks(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("c/*/**/*") if file.is_file())


def test_a_calibration_without_any_one_of_its_files_is_refused(saved):
    files = sorted(file for file in saved.rglob("*") if file.is_file())
    assert len(files) == 1 + 2 * 8  # the group; a description and a chunk for each array
    for file in files:
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(CalibrationError, match=r"Make it anew: bac calibrate --policy-path CKPT --env ENV"):
            Calibration.load(saved)
        file.write_bytes(content)
    Calibration.load(saved)


def test_a_chunk_that_is_missing_is_not_read_as_zeros(saved):
    (chunk,) = (saved / "similarity" / "c").rglob("0/0/0")
    chunk.unlink()
    with pytest.raises(CalibrationError, match=r"similarity: 1 of 1 parts are missing\. Make it anew"):
        Calibration.load(saved)


def test_numbers_of_another_calibration_do_not_fit_the_checksum(saved):
    array = zarr.open_group(str(saved), mode="r+")["similarity"]
    array[:] = array[:] / 2
    with pytest.raises(CalibrationError, match="its checksum does not fit its numbers"):
        Calibration.load(saved)


def test_a_calibration_of_an_earlier_bac_has_no_checksum_and_is_read(saved):
    group = zarr.open_group(str(saved), mode="r+")
    del group.attrs["checksum"]
    np.testing.assert_array_equal(Calibration.load(saved).similarity, calibration().similarity)


@pytest.mark.parametrize("name", ["similarity", "half_caching_error", "change"])
def test_an_array_of_another_shape_is_refused(saved, name):
    made = calibration()
    values = {name: getattr(made, name)[..., :1]}
    with pytest.raises(CalibrationError, match=f"{name}: must have the shape"):
        type(made)(**{**vars(made), **values})


def test_zeros_are_numbers_too(tmp_path):
    arrays.save(tmp_path / "zeros", {"x": np.zeros((2, 3))}, {})
    found, _ = arrays.load(tmp_path / "zeros", ("x",), ())
    assert found["x"].tolist() == [[0, 0, 0], [0, 0, 0]]


# Nothing runs


@pytest.mark.parametrize("attack", ATTACKS)
def test_opening_a_crafted_calibration_runs_nothing_and_says_so(saved, tmp_path, attack):
    arm(saved / "similarity", ATTACKS[attack], tmp_path / "ran")
    with pytest.raises(CalibrationError, match=r"similarity: holds something else than plain numbers"):
        Calibration.load(saved)
    assert not (tmp_path / "ran").exists()


def test_a_description_that_only_the_group_knows_is_not_used(saved):
    group = json.loads((saved / "zarr.json").read_text())
    inline = json.loads((saved / "similarity" / "zarr.json").read_text())
    inline["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    group["consolidated_metadata"] = {
        "kind": "inline", "must_understand": False, "metadata": {"similarity": inline},
    }  # fmt: skip
    (saved / "zarr.json").write_text(json.dumps(group))
    np.testing.assert_array_equal(Calibration.load(saved).similarity, calibration().similarity)


def test_a_codec_of_format_3_that_is_not_known_is_refused(saved):
    path = saved / "similarity" / "zarr.json"
    described = json.loads(path.read_text())
    described["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    path.write_text(json.dumps(described))
    with pytest.raises(CalibrationError, match="holds something else than plain numbers"):
        Calibration.load(saved)


def test_the_schedule_of_a_whole_calibration_is_made(saved):
    assert bac.adaptive_schedule(Calibration.load(saved), num_updates=2, num_bubbled=1).num_steps == 5
