"""Whatever a file holds, there is one kind of error; and what is accepted gives finite actions.

``BAC_FUZZ=2000`` damages each kind of file so many times; otherwise a few seconds' worth.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bac
from bac.adapters import find_host
from bac.caching.block import Block, BlockKind
from bac.caching.calibration import Accumulator, Calibration
from bac.certificate import Certificate
from bac.errors import MismatchError
from bac.exported import Card, ExportedPolicy, Noise, Port, Scaling
from bac.fingerprint import Fingerprint
from bac.guarding.guard import identity
from bac.measured import Measured
from bac.published import ScaleShift
from bac.solvers import Ancestral, Multistep
from tests.bac.models import obs
from tests.bac.mutations import damaged, torn

pytest.importorskip("diffusers")
from tests.bac.test_misuse import Ddim

torch.manual_seed(0)
POLICY = Ddim()
HOST = find_host(POLICY)
NAMES = [block.name for block in HOST.blocks]
SCHEDULE = bac.Schedule(3, dict.fromkeys(NAMES, (0, 2)))
FITTED = Multistep(((0.9, 0.1, 0.0), (0.8, 0.1, 0.0, 0.1, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)))
ESTIMATOR = ScaleShift({name: {"scale": np.ones((3, 12)), "shift": np.zeros((3, 12))} for name in NAMES})
MADE_FOR = HOST.fingerprint()
MEASURED = Measured("energy distance", 0.01, -0.01, 0.02, 0.01, 0.1, 1.1, 24, 8, "DDPMScheduler, 100 steps")


def fuzz(examples: int) -> settings:
    """So many examples, if the environment does not say otherwise."""
    return settings(
        max_examples=int(os.environ.get("BAC_FUZZ", examples)),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def refused(path: Path, load: Any) -> Any:
    """What a file holds; None if it was refused, in one line that names the file and what to type."""
    try:
        return load(path)
    except bac.BacError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 1000
        assert any(word in message for word in ("Make it anew: ", "Make one: ", "Write one: "))
        return None


def assert_finite(denoising: bac.Denoising, guard: bac.Guard | None = None) -> None:
    """Put on the policy, it is refused or gives finite actions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy in diffusers, for unusual timesteps
            bac.wrap(POLICY, denoising, guard=guard, replay=False, strict=False)
            chunk = HOST.predict_seeded(obs(), 0)
    except bac.BacError:
        return
    finally:
        bac.unwrap(POLICY)
    assert chunk.isfinite().all()


# bac.json, of each version

DOCUMENTS = {
    "fitted": bac.Denoising(FITTED, (18, 9, 3), fingerprint=MADE_FOR),
    "fitted ancestral": bac.Denoising(
        Ancestral(FITTED.coefficients, (0.5, 0.2, 0.0)), (18, 9, 3), fingerprint=MADE_FOR, measured=MEASURED
    ),
    "fitted estimator": bac.Denoising(num_steps=3, schedule=SCHEDULE, estimator=ESTIMATOR, fingerprint=MADE_FOR),
    "solver and schedule": bac.Denoising("DPM-Solver++", (18, 9, 3), schedule=SCHEDULE, fingerprint=MADE_FOR),
}
OLD_SCHEDULE = {
    "format": "bac.schedule", "version": 1, "num_steps": 5, "update_steps": dict.fromkeys(NAMES, [0, 2]),
    "estimator": "taylor-1", "fingerprint": {"policy": "a.Policy", "block_names": NAMES, "timesteps": [16.0, 12.0]},
}  # fmt: skip
OLD_TUNED = {
    "format": "bac.denoising", "version": 1, "num_steps": 3, "solver": "fitted multistep", "timesteps": [18, 9, 3],
    "weights": [list(row) for row in FITTED.coefficients], "fingerprint": None,
    "schedule": {**OLD_SCHEDULE, "num_steps": 3, "estimator": "hold"},
}  # fmt: skip
KINDS = {
    **{name: denoising.to_document() for name, denoising in DOCUMENTS.items()},
    "schedule of version 1": OLD_SCHEDULE,
    "tuned of version 1": OLD_TUNED,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_bac_json_is_refused_in_a_line_or_gives_finite_actions(kind, tmp_path):
    path = tmp_path / "bac.json"

    @fuzz(150)
    @given(damaged(KINDS[kind]))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        denoising = refused(path, bac.load)
        if denoising is not None:
            denoising.save(path)
            assert str(bac.load(path)) == str(denoising)
            assert_finite(denoising)

    check()


# guard.json

GUARD = bac.Guard(
    dict.fromkeys(NAMES, (None, 0.5, None)), 0.1, 64, identity(SCHEDULE), action_range=((-1.0, -2.0), (1.0, 2.0)),
    fingerprint=MADE_FOR, probe_every=1, response=bac.Schedule(3, dict.fromkeys(NAMES, (0, 1, 2)), MADE_FOR),
)  # fmt: skip


def test_a_damaged_guard_is_refused_in_a_line_or_gives_finite_actions(tmp_path):
    path, watched = tmp_path / "guard.json", bac.Denoising(num_steps=3, schedule=SCHEDULE)
    GUARD.save(path)

    @fuzz(150)
    @given(damaged(json.loads(path.read_text())))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        guard = refused(path, bac.Guard.load)
        if guard is not None:
            assert str(guard).startswith("Guard: ")
            assert_finite(watched, guard)

    check()


# certificate.json

CERTIFICATE = Certificate(
    "shown", "pusht", "fitted", "dense", "success", 70, -0.01, -0.04, 0.03, 0.05, 0.95, 9000, "0" * 16, "1" * 16,
    "python -m eval.certify", "cpu", "2026-01-01",
)  # fmt: skip


def test_a_damaged_certificate_is_refused_in_a_line_or_speaks(tmp_path):
    path = tmp_path / "certificate.json"
    CERTIFICATE.save(path)

    @fuzz(150)
    @given(damaged(json.loads(path.read_text())))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        certificate = refused(path, Certificate.load)
        assert certificate is None or " paired episodes of " in str(certificate)

    check()


# card.json of an export

CARD = Card(
    "pt2", "a.Policy", "fitted multistep, 2 steps", "cpu",
    (Port("observation.state", (1, 2, 3), "float32", "the data set's", has_window=True),),
    (Noise("noise", (2, 1, 5, 7), "float32", "normal"), Noise("other", (1, 5), "float64", "uniform")),
    Port("action", (1, 5, 7), "float32", "the data set's"),
    {"observation.state": Scaling("MIN_MAX", [0.0] * 3, [1.0, 2.0, 2.0], 1e-8),
     "action": Scaling("MEAN_STD", [0.0] * 7, [1.0] * 7, 0.0)},
    2, 5, {"program.pt2": 0.0}, 3, {"program.pt2": "0" * 16, "weights": "1" * 16}, {"program.pt2": 2.0},
    {"torch": "2.11.0"},
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, for statistics that overflow
def test_a_damaged_card_is_refused_in_a_line_or_drives_a_robot(tmp_path):
    CARD.save(tmp_path)
    observation = {"observation.state": np.zeros((1, 3))}

    @fuzz(300)
    @given(damaged(json.loads((tmp_path / "card.json").read_text())))
    def check(content: bytes) -> None:
        (tmp_path / "card.json").write_bytes(content)
        card = refused(tmp_path / "card.json", lambda path: Card.load(path.parent))
        if card is None:
            return
        assert str(card).startswith("Export: ")
        policy = ExportedPolicy(card, lambda _: np.zeros((1, 5, 7), np.float32))
        try:
            assert policy.select_action(observation).shape == (1, 7)
        except MismatchError as error:
            assert "\n" not in str(error)  # the damaged card wants other observations than a robot has

    check()


# Calibrations


def calibration() -> Calibration:
    accumulator = Accumulator([Block("a", BlockKind.SELF_ATTENTION, 0), Block("b", BlockKind.FEED_FORWARD, 0)])
    generator = torch.Generator().manual_seed(0)
    accumulator.add({name: torch.randn(5, 3, 2, generator=generator) for name in "ab"})
    return accumulator.result(Fingerprint(policy="a.Policy", block_names=("a", "b")))


@pytest.mark.filterwarnings("ignore")  # zarr warns of what it finds beside its own files
def test_a_damaged_calibration_is_refused_in_a_line_or_is_scheduled(tmp_path):
    pytest.importorskip("zarr")
    whole, path = tmp_path / "whole.zarr", tmp_path / "damaged.zarr"
    made = calibration()
    made.save(whole)
    files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file())

    @fuzz(30)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole, path)
        file = path / data.draw(st.sampled_from(files))
        content = file.read_bytes()
        if file.name != "zarr.json":
            kinds = st.one_of(st.none(), torn(content))
        else:
            kinds = st.one_of(st.none(), damaged(json.loads(content)))
        new = data.draw(kinds)
        file.unlink() if new is None else file.write_bytes(new)
        loaded = refused(path, Calibration.load)
        if loaded is not None:
            np.testing.assert_array_equal(loaded.similarity, made.similarity)
            schedule = bac.adaptive_schedule(loaded, num_updates=2, num_bubbled=1)
            assert schedule.num_steps == 5

    check()
