"""A fingerprint holds what a policy's numbers depend on, and is the same for the same numbers."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import bac
from bac.adapters import find_host
from bac.errors import MismatchError, ScheduleError
from bac.fingerprint import Fingerprint, noise_levels, weights_hash
from bac.published import ScaleShift
from bac.recording import record_features
from bac.solvers import SOLVERS, Multistep
from tests.bac.models import TinyTransformerPolicy, obs, sweep

CHECKPOINTS = Path(__file__).parents[2] / "policies" / "checkpoints"

# Weights


def layers(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 128), nn.Linear(128, 3)).to(dtype)


def test_the_same_weights_have_one_hash_whoever_holds_them():
    made = layers()
    renamed = nn.ModuleDict({"base_layer": copy.deepcopy(made)})  # as PEFT and torch.compile rename
    assert weights_hash(made) == weights_hash(layers()) == weights_hash(renamed)
    with torch.inference_mode():
        assert weights_hash(made) == weights_hash(layers())


def test_the_hash_does_not_depend_on_the_layout_in_memory():
    made = layers()
    made[1].weight.data = made[1].weight.data.T.contiguous().T
    assert weights_hash(made) == weights_hash(layers())


def test_a_training_step_and_a_cast_change_the_hash():
    trained, dead = layers(), layers()
    for parameter in trained.parameters():
        parameter.data.add_(1e-6)
    dead[0].weight.data[:, 1:] += 1e-3  # the first input was always zero, so its column never learned
    hashes = {weights_hash(module) for module in (layers(), trained, dead, layers(torch.bfloat16))}
    assert len(hashes) == 4


def test_weights_that_are_nowhere_have_no_hash():
    assert weights_hash(nn.ReLU()) is None
    assert weights_hash(layers().to("meta")) is None


def test_an_adapter_counts_as_weights_while_it_is_there_whether_it_is_on_or_off():
    peft = pytest.importorskip("peft")
    before = weights_hash(layers())
    adapted = peft.get_peft_model(layers(), peft.LoraConfig(target_modules=["0", "1"], r=2))
    on = weights_hash(adapted.get_base_model())
    adapted.base_model.disable_adapter_layers()
    assert before != on == weights_hash(adapted.get_base_model())
    assert weights_hash(adapted.unload()) == before


def test_wrapping_does_not_change_the_fingerprint():
    policy = TinyTransformerPolicy()
    before = find_host(policy).fingerprint()
    bac.wrap(policy, sweep(policy, (0, 3), 7))
    policy.predict_action_chunk(obs(2))
    assert find_host(policy).fingerprint() == before
    assert before.weights == weights_hash(policy)


# Noise


def test_noise_levels_of_float32_and_float64_are_the_same():
    betas = torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)
    one, other = (noise_levels((1 - betas.to(dtype)).cumprod(0)) for dtype in (torch.float32, torch.float64))
    assert len(one) == 9 and one[0] == pytest.approx(1 - 1e-4)
    assert Fingerprint(noise_levels=one).differences(Fingerprint(noise_levels=other)) == ()
    later = noise_levels((1 - 1.01 * betas).cumprod(0))
    (line,) = Fingerprint(noise_levels=one).differences(Fingerprint(noise_levels=later))
    assert line.startswith("noise_levels: the schedule has 9 values (0.9999, ")


# Values check themselves, and what is unknown is not compared


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": 3}, "policy must be a text, got 3"),
        ({"version": None}, "version must be a text, got None"),
        ({"block_names": [["a"]]}, "block_names must be names"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1, got 0"),
        ({"timesteps": [float("nan")]}, "timesteps must be finite numbers"),
        ({"noise_levels": ["much"]}, "noise_levels must be finite numbers"),
    ],
)
def test_a_value_of_another_type_is_refused(values, message):
    with pytest.raises(ScheduleError, match=f"fingerprint: {message}"):
        Fingerprint.from_dict(values)


def test_a_fingerprint_of_an_earlier_bac_fits_as_before():
    earlier = Fingerprint.from_dict({"policy": "a.Policy", "block_names": ["a"], "dtype": "float32"})
    now = replace(earlier, noise_levels=(0.9, 0.1), prediction_type="epsilon", clip="none", weights="0123")
    assert earlier.differences(now) == now.differences(earlier) == ()
    assert not earlier.other_weights(now) and not now.other_weights(earlier)


# On a policy


@pytest.fixture
def policies():
    pytest.importorskip("lerobot")
    from tests.policies.models import small_policy

    return small_policy


OTHERS = {
    "noise_levels": {"beta_schedule": "linear"},
    "prediction_type": {"prediction_type": "sample"},
    "num_train_timesteps": {"num_train_timesteps": 120},
    "clip": {"clip_sample": False},
}
FITTED = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))
WAYS = {
    "fitted solver": bac.Denoising(FITTED, (94, 54)),
    "solver": bac.Denoising(SOLVERS[1], (94, 54)),
    "own steps": bac.Denoising(num_steps=5),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", OTHERS)
def test_another_meaning_of_the_numbers_is_refused_by_name(policies, field, way):
    made_for = find_host(policies(n_layer=1)).fingerprint()
    other = policies(n_layer=1, **OTHERS[field])
    with pytest.raises(MismatchError, match=f"\n  {field}: the schedule has "):
        bac.wrap(other, replace(WAYS[way], fingerprint=made_for), replay=False)


def trained_on(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1e-3)
    return policy


def scheduled(policy):
    names = [block.name for block in find_host(policy).blocks]
    return bac.Denoising(schedule=bac.Schedule(5, dict.fromkeys(names, (0, 3))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_steps_and_schedules_stay_on_a_policy_that_was_trained_on_and_one_line_says_so(policies, caplog):
    policy = policies(n_layer=1)
    for way in (WAYS["own steps"], WAYS["solver"], scheduled(policy)):
        signed = replace(way, fingerprint=find_host(policies(n_layer=1)).fingerprint())
        with caplog.at_level(logging.WARNING, "bac"):
            caplog.clear()
            bac.wrap(policies(n_layer=1), signed, replay=False)
            assert not caplog.records
            bac.wrap(trained_on(policies(n_layer=1)), signed, replay=False)
        (record,) = caplog.records
        assert "was made for other weights (" in record.message and "\n" not in record.message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fitted_coefficients_are_refused_on_a_policy_that_was_trained_on_unless_asked_for(policies, caplog):
    from tests.policies.models import observations

    policy = policies(n_layer=1)
    schedule = scheduled(policy).schedule
    estimator = ScaleShift.fit(schedule, [record_features(policy, observations(2), seed=1)])
    for way in (WAYS["fitted solver"], bac.Denoising(schedule=schedule, estimator=estimator)):
        signed = replace(way, fingerprint=find_host(policy).fingerprint())
        bac.wrap(policy, signed, replay=False)
        other = trained_on(policies(n_layer=1))
        with pytest.raises(MismatchError, match=r"made for other weights .* fitted to them\. Tune again, or accept"):
            bac.wrap(other, signed, replay=False)
        with caplog.at_level(logging.WARNING, "bac"):
            bac.wrap(other, signed, replay=False, strict=False)
        assert not caplog.records


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_timesteps_beyond_the_training_are_refused(policies):
    with pytest.raises(ScheduleError, match="timesteps: must be below 100, .* got 400; tune for this policy"):
        bac.wrap(policies(n_layer=1), bac.Denoising(FITTED, (400, 54)), strict=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("folder", sorted(path.parent.name for path in CHECKPOINTS.glob("*/fitted_4.json")))
def test_the_shipped_coefficients_are_signed_for_the_shipped_weights(folder):
    pytest.importorskip("lerobot")
    from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy

    policy = DiffusionTransformerPolicy.from_pretrained(CHECKPOINTS / folder)
    shipped = bac.load(CHECKPOINTS / folder / "fitted_4.json")
    found = find_host(policy).fingerprint()
    assert shipped.fingerprint.differences(found) == ()
    assert (shipped.fingerprint.weights, shipped.fingerprint.clip) == (found.weights, "[-1, 1]")
    bac.wrap(policy, shipped, replay=False)
