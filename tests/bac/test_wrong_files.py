"""Whatever is wrong with a ``bac.json``, there is one kind of error, and it names the file."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bac
from bac.errors import ScheduleError
from bac.files import MAKE
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
    assert refusal(tmp_path / "absent.json") == f"there is no such file. Make one: {MAKE}"


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "bac.denoi', b"\xff\xfe", b"[" * 10**5])
def test_a_file_that_is_no_json_is_refused(path, content):
    path.write_bytes(content)
    assert refusal(path).startswith("cannot be read as JSON (")


def test_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path) == f"cannot be read: it is a folder. Make one: {MAKE}"


def test_a_file_that_was_cut_off_is_refused(path):
    path.write_text(path.read_text()[:-40])
    assert refusal(path).startswith("cannot be read as JSON (")


@pytest.mark.parametrize(("content", "kind"), [("[1]", "list"), ("3", "int"), ("null", "NoneType"), ('"a"', "str")])
def test_json_of_another_kind_is_refused(path, content, kind):
    path.write_text(content)
    assert refusal(path) == f"must hold a JSON object, holds {kind}. Make it anew: {MAKE}"


@pytest.mark.parametrize("change", [{"version": 3}, {"version": None}, {"format": "bac.guard"}, {"format": ["bac"]}])
def test_another_format_or_version_is_refused_with_what_writes_one(path, change):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    message = refusal(path)
    assert message.startswith("is no bac.json that this bac reads (format ")
    assert message.endswith("Write one: bac tune, bac calibrate, or denoising.save(path)")


TYPE = "is of another type than it must be ("


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": None}, f"timesteps: {TYPE}"),
        ({"timesteps": ["nine", 3]}, "timesteps: must fall from step to step"),
        ({"timesteps": [3, 9]}, "timesteps: must fall from step to step"),
        ({"timesteps": [9, 3, 1]}, "timesteps: must be 2, one for each row of coefficients, got 3"),
        ({"solver": "DPM-Solver++"}, "must be an object with name, got str"),
        ({"solver": {}}, "name: is missing"),
        ({"solver": {"name": "Heun"}}, "solver: must be one of DPM-Solver++ 1, DPM-Solver++, DDPM, SDE"),
        ({"solver": {"name": "fitted multistep"}}, "solver: fitted multistep needs its coefficients"),
        ({"solver": {"name": "fitted multistep", "coefficients": [[1, None, 0]]}}, f"coefficients: {TYPE}"),
        (
            {"solver": {"name": "fitted multistep", "coefficients": [[1, float("nan"), 0]]}},
            "coefficients of step 0: must",
        ),
        ({"num_steps": None}, "num_steps: must be the number of timesteps, 2, got null"),
        ({"num_steps": 4}, "num_steps: timesteps are for 2 steps, got 4"),
        ({"num_steps": "two"}, "num_steps: must be a whole number of at least 1, got 'two'"),
        ({"schedule": {"num_steps": 2}}, "update_steps: is missing"),
        ({"schedule": {"num_steps": 2, "update_steps": ["a"]}}, f"update_steps: {TYPE}"),
        ({"schedule": {"num_steps": 2, "update_steps": {"a": [0, 9]}}}, "a: update steps must be below num_steps = 2"),
        ({"schedule": {"num_steps": 2, "update_steps": {}}}, "update_steps: a schedule needs at least one block"),
        ({"schedule": None}, "estimator: scale_shift needs a schedule, which says where to reuse"),
        ({"estimator": "hold"}, "must be an object with name, got str"),
        ({"estimator": {"name": ""}}, 'estimator: must be a name such as "hold" or "taylor-1"'),
        ({"estimator": {"name": "scale_shift", "parameters": ["scale"]}}, f"parameters: {TYPE}"),
        (
            {"estimator": {"name": "scale_shift", "parameters": {"a": {"scale": {"shape": [7], "float32": "AAAA"}}}}},
            "a, scale: its numbers are damaged",
        ),
        ({"precision": "int8"}, 'precision: must be one of "as loaded"'),
        ({"fingerprint": {"colour": "red"}}, "fingerprint: holds colour, which this bac does not know"),
        ({"fingerprint": {"block_names": 3}}, "fingerprint: must hold lists of block_names, timesteps"),
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
    assert refusal(path) == f"{part}: is missing. Make it anew: {MAKE}"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"format": "bac.schedule", "version": 1, "num_steps": 5, "fingerprint": None},
            "update_steps: is missing",
        ),
        (
            {"format": "bac.schedule", "version": 1, "num_steps": 5, "update_steps": None, "fingerprint": None},
            f"update_steps: {TYPE}",
        ),
        ({"format": "bac.schedule", "version": 2}, "is no bac.json that this bac reads"),
        ({"format": "bac.denoising", "version": 1, "solver": None}, "schedule: is missing"),
        (
            {"format": "bac.denoising", "version": 1, "solver": None, "schedule": 3},
            "must be an object with num_steps, got int",
        ),
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
