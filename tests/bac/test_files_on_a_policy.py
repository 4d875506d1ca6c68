"""A way to denoise is kept in a file and put on again: on the policy that it was made for, and on no other."""

from __future__ import annotations

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.errors import MismatchError
from bac.published import ScaleShift
from bac.recording import record_features
from bac.solvers import SOLVERS, Multistep
from bac.tuning.bench import running
from bac.tuning.families import fewer_steps, together

pytest.importorskip("lerobot")

from tests.policies.models import observations, small_policy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
GRID = tuple(range(99, -1, -5))
FITTED = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))


@pytest.fixture
def policy():
    made = small_policy(n_layer=1, noise_scheduler_type="DDIM")
    made.diffusion.use_solver("DDIM", len(GRID))
    return made


def chunk(policy, denoising):
    with running(policy, denoising):
        return policy.predict_action_chunk(observations(2), generator=torch.Generator().manual_seed(0))


def signed(way, policy):
    """The same, knowing what it was made for."""
    estimator, fingerprint = way.estimator, find_host(policy).fingerprint()
    return bac.Denoising(way.solver, way.timesteps, way.num_steps, way.schedule, estimator, fingerprint=fingerprint)


def fitted_estimator(policy):
    names = [block.name for block in find_host(policy).blocks]
    schedule = bac.Schedule(len(GRID), dict.fromkeys(names, (0, 3, 7)))
    estimator = ScaleShift.fit(schedule, [record_features(policy, observations(2), seed=1)])
    return bac.Denoising(schedule=schedule, estimator=estimator)


def on_fewer_updates(policy):
    names = [block.name for block in find_host(policy).blocks]
    return together(SOLVERS[0], GRID, (2, 9), names, "taylor-1", stride=4)


WAYS = {
    "fewer steps": lambda policy: fewer_steps(SOLVERS[1], GRID, (1, 6, 13)),
    "fitted solver": lambda policy: fewer_steps(FITTED, GRID, (1, 9)),
    "together": on_fewer_updates,
    "fitted estimator": fitted_estimator,
    "dense": lambda policy: bac.Denoising(num_steps=len(GRID)),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_saved_denoises_as_before(policy, way, tmp_path):
    denoising = signed(WAYS[way](policy), policy)
    expected = chunk(policy, denoising)
    denoising.save(tmp_path / "bac.json")
    loaded = bac.load(tmp_path / "bac.json")
    assert loaded == denoising and loaded.fingerprint == denoising.fingerprint
    assert torch.equal(chunk(policy, loaded), expected)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_saved_is_refused_on_another_policy_and_nothing_is_left(policy, way, tmp_path):
    signed(WAYS[way](policy), policy).save(tmp_path / "bac.json")
    other = small_policy(n_layer=2, noise_scheduler_type="DDIM")
    other.diffusion.use_solver("DDIM", len(GRID))
    before = {name: dict(vars(module)) for name, module in other.named_modules()}
    with pytest.raises(bac.BacError, match="made for something else|other blocks"):
        bac.wrap(other, bac.load(tmp_path / "bac.json"))
    assert {name: dict(vars(module)) for name, module in other.named_modules()} == before


def test_fewer_steps_of_a_flow_policy_s_own_solver_are_kept(tmp_path):
    from tests.lerobot import models

    policy, batch = models.smolvla(), models.observation(2)
    denoising = signed(bac.Denoising(num_steps=3), policy)
    denoising.save(tmp_path / "bac.json")
    loaded = bac.load(tmp_path / "bac.json")
    assert loaded == denoising
    bac.wrap(policy, loaded, replay=False)
    found = find_host(policy).predict_seeded(batch, 0)
    assert bac.unwrap(policy).config.num_steps == 7
    policy.config.num_steps = 3
    assert torch.equal(found, find_host(policy).predict_seeded(batch, 0))
    with pytest.raises(MismatchError, match="own solver, 3 steps was made for something else"):
        bac.wrap(models.pi(name="pi0"), loaded)
