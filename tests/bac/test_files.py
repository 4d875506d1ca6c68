"""``bac.json``: what is written is what is read, whatever version wrote it; nothing is ever half written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bac
from bac.caching.estimators import Hold, Residual, Taylor
from bac.errors import ScheduleError
from bac.files import write_json
from bac.fingerprint import Fingerprint
from bac.published import AdamsBashforth, AffineResidual, FirstBlock, Newton, PreviousChunk, Rescale, ScaleShift
from bac.solvers import SOLVERS, Multistep

RESULTS = Path(__file__).parents[2] / "results"
FINGERPRINT = Fingerprint(
    "a.Policy",
    "a.Denoiser",
    ("a", "b"),
    5,
    "DDIMScheduler",
    (99.0, 0.5),
    "float32",
    "16 runs",
    "1",
    (0.9, 0.1),
    "epsilon",
    "[-1, 1]",
    100,
    None,
    "0123456789abcdef",
)
DENOISING = bac.Denoising("DPM-Solver++", (9, 3), schedule=bac.Schedule(2, {"a": (0,)}), fingerprint=FINGERPRINT)

# There and back

numbers = st.floats(-100, 100)
plain = st.sampled_from([None, Hold(), Taylor(1), Taylor(3), Newton(2), AdamsBashforth(1), Rescale(), Residual(),
                         PreviousChunk(), PreviousChunk(anchored=True)])  # fmt: skip


@st.composite
def fitted(draw: st.DrawFn, names: list[str], num_steps: int) -> ScaleShift | AffineResidual:
    values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3)
    kind, parameter = draw(st.sampled_from([(ScaleShift, "scale"), (AffineResidual, "offset")]))
    rows = {name: {parameter: np.array(draw(values)) * np.ones((num_steps, 3), np.float32)} for name in names}
    return kind(rows)


@st.composite
def ways(draw: st.DrawFn) -> bac.Denoising:
    timesteps = tuple(sorted(draw(st.sets(st.integers(0, 999), min_size=1, max_size=7)), reverse=True))
    num_steps = len(timesteps)
    rows = tuple(tuple(draw(numbers) for _ in range(5 if step else 3)) for step in range(num_steps))
    solver = draw(st.sampled_from([None, *SOLVERS, Multistep(rows)]))
    parts = {
        "solver": solver,
        "timesteps": timesteps if solver else (),
        "num_steps": draw(st.sampled_from([None, num_steps])),
    }
    if draw(st.booleans()):
        names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True))
        updates = {name: (0, *sorted(draw(st.sets(st.integers(1, num_steps))) - {num_steps})) for name in names}
        parts["schedule"] = bac.Schedule(num_steps, updates)
        along = [Taylor(1, timesteps)] if solver else []
        parts["estimator"] = draw(st.one_of(plain, st.sampled_from([None, *along]), fitted(names, num_steps)))
    return bac.Denoising(**parts, fingerprint=draw(st.sampled_from([None, FINGERPRINT])))


@settings(max_examples=60)
@given(ways())
def test_json_round_trip_is_the_identity(tmp_path_factory, denoising):
    path = tmp_path_factory.mktemp("ways") / "bac.json"
    denoising.save(path)
    loaded = bac.load(path)
    assert loaded == denoising and hash(loaded) == hash(denoising)
    assert (loaded.fingerprint, str(loaded)) == (denoising.fingerprint, str(denoising))
    assert bac.Denoising.from_document(denoising.to_document(), "here") == denoising


def test_a_file_is_plain_json_that_says_format_and_version(tmp_path):
    DENOISING.save(tmp_path / "bac.json")
    assert json.loads((tmp_path / "bac.json").read_text()) == {
        "format": "bac.denoising",
        "version": 2,
        "solver": {"name": "DPM-Solver++"},
        "timesteps": [9, 3],
        "num_steps": 2,
        "schedule": {"num_steps": 2, "update_steps": {"a": [0]}},
        "estimator": {"name": "hold"},
        "precision": "as loaded",
        "fingerprint": {
            **vars(FINGERPRINT),
            "block_names": ["a", "b"],
            "timesteps": [99.0, 0.5],
            "noise_levels": [0.9, 0.1],
        },
        "measured": None,
    }


@pytest.mark.parametrize(
    ("denoising", "message"),
    [
        (bac.Denoising(schedule=FirstBlock(4, 0.1)), "schedule: FirstBlock decides during the run; no file holds it"),
        (
            bac.Denoising(schedule=bac.Schedule(4, {"a": (0,)}), estimator=PreviousChunk(refresh=7)),
            r"no file holds the options of PreviousChunk\(refresh=7",
        ),
        (
            bac.Denoising(schedule=bac.Schedule(4, {"a": (0,)}), estimator=Taylor(1, (4.0, 3.0, 1.0, 0.0))),
            "no file holds the options of Taylor",
        ),
    ],
)
def test_what_no_file_holds_is_refused_and_the_file_stays(tmp_path, denoising, message):
    path = tmp_path / "bac.json"
    DENOISING.save(path)
    with pytest.raises(ScheduleError, match=message):
        denoising.save(path)
    assert bac.load(path) == DENOISING


# Older formats

SCHEDULE_1 = {
    "format": "bac.schedule",
    "version": 1,
    "num_steps": 5,
    "update_steps": {"a": [0, 2], "b": [0, 1, 4]},
    "fingerprint": {"policy": "a.Policy", "block_names": ["a", "b"], "timesteps": [99.0, 0.5]},
}
DENOISING_1 = {
    "format": "bac.denoising",
    "version": 1,
    "method": "together",
    "num_steps": 2,
    "solver": "fitted multistep",
    "weights": [[0.5, 0.4, 0.0], [1.0, 0.0, 0.0, 0.1, -0.1]],
    "timesteps": [94, 54],
    "schedule": {**SCHEDULE_1, "num_steps": 2, "update_steps": {"a": [0], "b": [0, 1]}, "estimator": "taylor-1"},
    "fingerprint": {"policy": "a.Policy", "num_steps": 100, "timesteps": [99.0, 0.5], "version": "0.1"},
}


def loaded(document, tmp_path):
    write_json(tmp_path / "bac.json", document)
    return bac.load(tmp_path / "bac.json")


def test_a_schedule_file_of_version_1_is_a_schedule_on_the_policy_s_own_steps(tmp_path):
    made_for = Fingerprint(policy="a.Policy", block_names=("a", "b"), timesteps=(99.0, 0.5))
    schedule = bac.Schedule(5, {"a": (0, 2), "b": (0, 1, 4)}, made_for)
    assert loaded(SCHEDULE_1, tmp_path) == bac.Denoising(schedule=schedule)
    named = loaded({**SCHEDULE_1, "estimator": "taylor-2", "fingerprint": None}, tmp_path)
    assert named == bac.Denoising(schedule=bac.Schedule(5, dict(schedule.update_steps), estimator="taylor-2"))


def test_a_tuned_file_of_version_1_is_the_same_way_to_denoise(tmp_path):
    found = loaded(DENOISING_1, tmp_path)
    assert found.solver == Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))
    assert (found.timesteps, found.num_steps, found.estimator_name) == ((94, 54), 2, "taylor-1")
    assert dict(found.schedule.update_steps) == {"a": (0,), "b": (0, 1)}
    expected = Fingerprint(policy="a.Policy", num_steps=100, timesteps=(99.0, 0.5), version="0.1")
    assert found.fingerprint == found.schedule.fingerprint == expected


def test_a_tuned_file_of_version_1_may_leave_solver_schedule_and_policy_open(tmp_path):
    own = {**DENOISING_1, "solver": None, "weights": None, "timesteps": [], "schedule": None, "fingerprint": None}
    assert loaded(own, tmp_path) == bac.Denoising(num_steps=2)
    assert loaded({**own, "solver": "DPM-Solver++", "timesteps": [9, 3]}, tmp_path) == bac.Denoising(
        "DPM-Solver++", (9, 3)
    )


COMMITTED = [
    *RESULTS.glob("*/bac_schedule.json"),
    *RESULTS.glob("tune/*/bac.json"),
    *RESULTS.glob("certificates/*/*/bac.json"),
]


def test_files_of_both_older_formats_are_committed():
    assert len(COMMITTED) >= 10


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.relative_to(RESULTS)))
def test_every_committed_file_is_read_whole_and_survives_being_saved_anew(path, tmp_path):
    document, denoising = json.loads(path.read_text()), bac.load(path)
    parts = document if document["format"] == "bac.schedule" else document["schedule"]
    if parts is not None:
        assert {name: list(steps) for name, steps in denoising.schedule.update_steps.items()} == parts["update_steps"]
    if document["format"] == "bac.denoising":
        assert list(denoising.timesteps) == document["timesteps"]
        assert denoising.num_steps == document["num_steps"]
    assert denoising.fingerprint.policy == document["fingerprint"]["policy"]
    denoising.save(tmp_path / "bac.json")
    assert bac.load(tmp_path / "bac.json") == denoising


# Written in one go


@pytest.mark.parametrize("fails", ["bac.files.json.dumps", "bac.files.os.fsync", "bac.files.os.replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails):
    path = tmp_path / "bac.json"
    DENOISING.save(path)

    def fail(*args, **options):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr(fails, fail)
        bac.Denoising(num_steps=7).save(path)
    assert bac.load(path) == DENOISING
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    DENOISING.save(tmp_path / "bac.json")
    (tmp_path / "other.json").write_text("{}")
    assert os.stat(tmp_path / "bac.json").st_mode == os.stat(tmp_path / "other.json").st_mode
