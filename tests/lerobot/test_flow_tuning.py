"""`bac.tune` on a flow-matching policy of LeRobot's."""

from __future__ import annotations

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.tuning.batches import split
from bac.tuning.flow import FITTED, OWN
from bac.tuning.reference import fine_run
from tests.lerobot import models

pytestmark = pytest.mark.slow
OPTIONS = {"replay": False, "rounds": 2, "evaluations": 3, "progress": False, "sweeps": (1, 3)}


@pytest.fixture(scope="module")
def tuned():
    policy = models.smolvla()
    return bac.tune(policy, [models.observation(6)], target_latency_s=50.0, reference="flow", **OPTIONS)


def test_fewer_steps_are_its_own_even_ones_tuned_ones_and_fitted_ones(tuned):
    few = {t.family: t for t in tuned.trials if t.denoising.num_evaluations == 3 and t.denoising.schedule is None}
    assert set(few) == {"fewer steps", OWN, FITTED}
    errors = [few[family].typical_error for family in (FITTED, OWN, "fewer steps")]
    assert errors == sorted(errors)
    assert not [t for t in tuned.trials if t.denoising.num_evaluations == 1]  # one step is far worse than two


def test_the_error_of_dense_is_its_distance_from_the_flow(tuned):
    policy, (fit, _) = models.smolvla(), split([models.observation(6)])
    own = find_host(policy).predict_seeded(fit[0], 0)
    bac.wrap(policy, fine_run(find_host(policy)), replay=False)
    distance = (find_host(policy).predict_seeded(fit[0], 0) - own).square().mean().sqrt()
    (dense,) = (trial for trial in tuned.trials if trial.family == "dense")
    assert dense.fit_error == pytest.approx(float(distance), rel=1e-4) and distance > 0.01


def test_what_was_tuned_is_saved_and_followed(tuned, tmp_path):
    (fitted,) = (trial.denoising for trial in tuned.trials if trial.family == FITTED)
    fitted.save(tmp_path / "bac.json")
    policy = bac.wrap(models.smolvla(), bac.load(tmp_path / "bac.json"), replay=False)
    assert bac.describe(policy).denoising == fitted
    assert torch.isfinite(policy.predict_action_chunk(models.observation(2))).all()


def test_an_untouched_policy_is_left():
    policy = models.smolvla()
    bac.tune(policy, [models.observation(4)], target_latency_s=50.0, **{**OPTIONS, "evaluations": 0, "sweeps": (2,)})
    assert not list(interceptors(policy)) and find_host(policy).num_steps == 7
