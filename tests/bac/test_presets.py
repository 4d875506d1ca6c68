"""Presets: few-step solvers for flow-matching policies that nobody has tuned."""

from __future__ import annotations

import json

import pytest
import torch

import bac
from bac import presets
from bac.adapters import find_host
from bac.errors import ScheduleError
from bac.files import FORMAT, VERSION
from bac.solvers import AdamsBashforth, Multistep
from tests.bac.models import TinyTransformerPolicy
from tests.bac.solvers.test_flow_fitting import Forking, Policy, fitter_of
from tests.bac.test_misuse import Ddim

ALL = presets.names()


def test_there_are_two_three_and_four_steps():
    assert {"flow-2", "flow-3", "flow-4"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_preset_is_a_solver_at_late_times_that_says_where_it_was_fitted(name):
    way = bac.Denoising.preset(*_split(name))
    assert way.num_evaluations == len(way.timesteps) == _split(name)[1] and way.schedule is None
    assert "fitted on" in way.fingerprint.calibration and way.fingerprint.weights is None
    assert isinstance(way.solver, Multistep) and all(abs(c) < 2 for row in way.solver.coefficients for c in row)


@pytest.mark.parametrize("name", ALL)
def test_a_denoiser_that_knows_the_clean_sample_is_followed_to_it(name):
    """On the way a preset may leave less noise than its times say; at the end it leaves none."""
    way = bac.Denoising.preset(*_split(name))
    x, before = torch.tensor([0.0, 1.0]), ()  # shares of clean and of noise
    clean, noise = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for row in way.solver.coefficients:
        x = torch.stack([c * term for c, term in zip(row, (clean, noise, x, *before), strict=True)]).sum(0)
        before = clean, noise
        assert float(x.sum()) == pytest.approx(1, abs=0.01)
    assert x.tolist() == pytest.approx([1, 0], abs=0.01)


def _split(name: str) -> tuple[str, int]:
    kind, num_steps = name.split("-")
    return kind, int(num_steps)


@pytest.mark.parametrize("num_steps", [3, 4])
def test_on_another_flow_a_preset_beats_its_own_even_steps(num_steps):
    policy = Policy()
    policy.head = Forking()
    fitter, preset = fitter_of(policy), bac.Denoising.preset("flow", num_steps)
    own = fitter.at(AdamsBashforth(1), [1 - step / num_steps for step in range(num_steps)])
    assert fitter.at(preset.solver, preset.timesteps).typical_error < 0.7 * own.typical_error


def test_a_preset_that_there_is_not_is_refused_with_those_that_there_are():
    for kind, num_steps in (("flow", 9), ("diffusion", 3)):
        with pytest.raises(ScheduleError, match=f"must be one of flow-2, flow-3, flow-4.* got '{kind}-{num_steps}'"):
            bac.Denoising.preset(kind, num_steps)


def test_a_policy_without_a_flow_refuses_it_with_the_reason():
    with pytest.raises(ScheduleError, match="shares of noise are for flow-matching policies"):
        bac.wrap(Ddim(), bac.Denoising.preset("flow", 3))
    with pytest.raises(ScheduleError, match="TinyTransformerPolicy has a solver of its own that cannot be replaced"):
        bac.wrap(TinyTransformerPolicy(), bac.Denoising.preset("flow", 3))


def test_a_file_may_name_a_preset_in_one_line(tmp_path):
    path = tmp_path / "bac.json"
    path.write_text(json.dumps({"format": FORMAT, "version": VERSION, "preset": "flow-3"}))
    assert bac.load(path) == bac.Denoising.preset("flow", 3)
    policy = Policy().eval()
    bac.wrap(policy, bac.load(path), flow=policy.described(), replay=False)
    assert bac.describe(policy).denoising.timesteps == bac.load(path).timesteps
    assert bac.describe(policy).own.endswith(" 10 steps")  # it remembers where the policy reads its number
    assert find_host(bac.unwrap(policy), flow=policy.described()).num_steps == 10


def test_what_stands_beside_the_name_of_a_preset_is_refused_and_not_dropped(tmp_path):
    path = tmp_path / "bac.json"
    document = {"format": FORMAT, "version": VERSION, "preset": "flow-3", "precision": "bf16", "timesteps": [0.9]}
    path.write_text(json.dumps(document))
    with pytest.raises(ScheduleError, match="preset: stands alone, but here is precision, timesteps too"):
        bac.load(path)


@pytest.mark.parametrize(
    ("named", "why"), [("flow-9", "must be one of flow-2"), (3, "must be a text"), ("../flow-3", "must be one of")]
)
def test_a_file_that_names_no_preset_is_one_sentence_with_the_file(tmp_path, named, why):
    path = tmp_path / "bac.json"
    path.write_text(json.dumps({"format": FORMAT, "version": VERSION, "preset": named}))
    with pytest.raises(ScheduleError, match=f"bac.json: preset: .*{why}"):
        bac.load(path)
