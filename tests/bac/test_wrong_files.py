"""Whatever is wrong with a ``bac.json``, there is one kind of error, and it names the file."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bac
from bac.errors import ScheduleError
from bac.published import ScaleShift
from bac.solvers import Multistep

FITTED = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))
SCHEDULE = bac.Schedule(2, {"a": (0,)})
DENOISING = bac.Denoising(FITTED, (9, 3), schedule=SCHEDULE, estimator=ScaleShift({"a": {"scale": np.ones((2, 1))}}))


@pytest.fixture
def path(tmp_path):
    DENOISING.save(tmp_path / "bac.json")
    assert bac.load(tmp_path / "bac.json") == DENOISING
    return tmp_path / "bac.json"


def refusal(path):
    with pytest.raises(ScheduleError) as caught:
        bac.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    assert refusal(tmp_path / "absent.json") == "there is no such file"


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "bac.denoi', b"\xff\xfe", b"[" * 10**5])
def test_a_file_that_is_no_json_is_refused(path, content):
    path.write_bytes(content)
    assert refusal(path).startswith("cannot be read as JSON (")


def test_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path).startswith("cannot be read as JSON (")


def test_a_file_that_was_cut_off_is_refused(path):
    path.write_text(path.read_text()[:-40])
    assert refusal(path).startswith("cannot be read as JSON (")


@pytest.mark.parametrize(("content", "kind"), [("[1]", "list"), ("3", "int"), ("null", "NoneType"), ('"a"', "str")])
def test_json_of_another_kind_is_refused(path, content, kind):
    path.write_text(content)
    assert refusal(path) == f"must hold a JSON object, holds {kind}; save it again"


@pytest.mark.parametrize("change", [{"version": 3}, {"version": None}, {"format": "bac.guard"}, {"format": ["bac"]}])
def test_another_format_or_version_is_refused_with_what_writes_one(path, change):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    message = refusal(path)
    assert message.startswith("is no bac.json that this bac reads (format ")
    assert message.endswith("Write one: bac tune, bac calibrate, or denoising.save(path)")


PARTS = "a part is missing or of another type ("


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": None}, PARTS),
        ({"timesteps": ["nine", 3]}, "timesteps: must be whole numbers"),
        ({"timesteps": [3, 9]}, "timesteps: must be whole numbers from 0 on, each below the one before"),
        ({"timesteps": [9, 3, 1]}, "timesteps: must be 2, one for each row of coefficients, got 3"),
        ({"solver": "DPM-Solver++"}, PARTS),
        ({"solver": {}}, PARTS),
        ({"solver": {"name": "Heun"}}, "solver: must be one of DPM-Solver++ 1, DPM-Solver++, fitted multistep"),
        ({"solver": {"name": "fitted multistep"}}, "solver: fitted multistep needs its coefficients"),
        ({"solver": {"name": "fitted multistep", "coefficients": [[1, None, 0]]}}, PARTS),
        (
            {"solver": {"name": "fitted multistep", "coefficients": [[1, float("nan"), 0]]}},
            "coefficients of step 0: must",
        ),
        ({"num_steps": 4}, "num_steps: timesteps are for 2 steps, got 4"),
        ({"num_steps": "two"}, "num_steps: must be a whole number of at least 1, got 'two'"),
        ({"schedule": {"num_steps": 2}}, PARTS),
        ({"schedule": {"num_steps": 2, "update_steps": ["a"]}}, PARTS),
        ({"schedule": {"num_steps": 2, "update_steps": {"a": [0, 9]}}}, "a: update steps must be below num_steps = 2"),
        ({"schedule": {"num_steps": 2, "update_steps": {}}}, "update_steps: a schedule needs at least one block"),
        ({"schedule": None}, "estimator: scale_shift needs a schedule, which says where to reuse"),
        ({"estimator": "hold"}, PARTS),
        ({"estimator": {"name": ""}}, 'estimator: must be a name such as "hold" or "taylor-1"'),
        ({"estimator": {"name": "scale_shift", "parameters": ["scale"]}}, PARTS),
        (
            {"estimator": {"name": "scale_shift", "parameters": {"a": {"scale": {"shape": [7], "float32": "AAAA"}}}}},
            "a, scale: its numbers are damaged",
        ),
        ({"precision": "int8"}, 'precision: must be "as loaded"'),
        ({"fingerprint": {"colour": "red"}}, PARTS),
        ({"fingerprint": {"block_names": 3}}, PARTS),
    ],
)
def test_a_part_that_is_wrong_is_named(path, change, message):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert refusal(path).startswith(message)


@pytest.mark.parametrize("part", ["solver", "timesteps", "num_steps", "schedule", "estimator", "fingerprint"])
def test_a_part_that_is_missing_is_named(path, part):
    document = json.loads(path.read_text())
    del document[part]
    path.write_text(json.dumps(document))
    assert refusal(path) == f"{PARTS}KeyError({part!r})); save it again"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"format": "bac.schedule", "version": 1, "num_steps": 5, "fingerprint": None},
            f"{PARTS}KeyError('update_steps')",
        ),
        (
            {"format": "bac.schedule", "version": 1, "num_steps": 5, "update_steps": None, "fingerprint": None},
            PARTS,
        ),
        ({"format": "bac.schedule", "version": 2}, "is no bac.json that this bac reads"),
        ({"format": "bac.denoising", "version": 1, "solver": None}, f"{PARTS}KeyError('schedule')"),
        ({"format": "bac.denoising", "version": 1, "solver": None, "schedule": 3}, f"{PARTS}TypeError("),
    ],
)
def test_an_older_file_that_is_not_whole_is_refused(path, document, message):
    path.write_text(json.dumps(document))
    assert refusal(path).startswith(message)


def test_a_schedule_for_a_fitted_estimator_without_its_parameters_is_refused_when_it_is_put_on(path):
    from tests.bac.models import TickPolicy

    document = {**json.loads(path.read_text()), "solver": None, "timesteps": [], "estimator": {"name": "scale_shift"}}
    path.write_text(json.dumps(document))
    policy, denoising = TickPolicy(num_steps=2), bac.load(path)
    with pytest.raises(
        ScheduleError, match=r"scale_shift has fitted parameters, which a schedule does not hold\. Give"
    ):
        bac.wrap(policy, denoising, blocks=policy.blocks())
