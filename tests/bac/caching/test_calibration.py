from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bac
from bac.caching.block import Block, BlockKind
from bac.caching.calibration import Accumulator, Calibration
from bac.caching.similarity import caching_error, cosine_similarity
from bac.errors import CalibrationError
from bac.fingerprint import Fingerprint
from bac.recording import record_features
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep

ONE_BLOCK = [Block("a", BlockKind.FEED_FORWARD, 0)]


def accumulate(*calls: torch.Tensor) -> Calibration:
    accumulator = Accumulator(ONE_BLOCK)
    for features in calls:
        accumulator.add({"a": features})
    return accumulator.result(Fingerprint())


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 4))
def test_streaming_equals_the_statistics_of_all_runs_together(seed, num_steps, num_samples):
    generator = torch.Generator().manual_seed(seed)
    calls = [torch.randn(num_steps, num_samples, 3, 2, generator=generator) for _ in range(3)]
    measured = accumulate(*calls)
    runs = torch.cat(calls, dim=1)
    similarity = np.stack([cosine_similarity(runs[:, i]) for i in range(3 * num_samples)])
    errors = np.array([caching_error(runs[:, i]) for i in range(3 * num_samples)])
    assert measured.num_runs == 3 * num_samples
    np.testing.assert_allclose(measured.similarity[0], similarity.mean(0), atol=1e-12)
    np.testing.assert_allclose(measured.similarity_std[0], similarity.std(0), atol=1e-6)
    np.testing.assert_allclose(measured.caching_error, errors.mean(), atol=1e-12)
    for half, runs_of_half in zip(measured.halves, (similarity[0::2], similarity[1::2]), strict=True):
        np.testing.assert_allclose(half.similarity[0], runs_of_half.mean(0), atol=1e-12)
        assert half.num_runs == len(runs_of_half)


def test_two_calibrations_with_the_same_seed_agree_bit_for_bit():
    torch.manual_seed(0)
    policy = TinyTransformerPolicy()
    first, second = (bac.calibrate(policy, [obs(3)], num_draws=2, seed=5, progress=False) for _ in range(2))
    np.testing.assert_array_equal(first.similarity, second.similarity)
    np.testing.assert_array_equal(first.caching_error, second.caching_error)
    assert first.fingerprint == second.fingerprint


def test_another_seed_draws_other_noise():
    torch.manual_seed(0)
    policy = TinyTransformerPolicy()
    first, second = (bac.calibrate(policy, [obs(3)], seed=seed, progress=False) for seed in (0, 1))
    assert np.abs(first.similarity - second.similarity).max() > 1e-6


def test_calibrating_leaves_the_global_random_state_and_the_policy_alone():
    policy = TinyTransformerPolicy()
    before = [sorted(vars(module)) for module in policy.modules()]
    state = torch.get_rng_state()
    bac.calibrate(policy, [obs(3)], progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert [sorted(vars(module)) for module in policy.modules()] == before


def test_each_observation_and_draw_is_a_run_and_the_summary_says_so():
    measured = bac.calibrate(TinyTransformerPolicy(), [obs(3), obs(2)], num_draws=2, progress=False)
    assert measured.num_runs == 10
    assert measured.fingerprint.num_steps == measured.num_steps == 7
    assert measured.fingerprint.calibration.startswith("10 runs, 2 draws each")
    assert measured.fingerprint.version == bac.__version__


def test_features_of_a_cached_run_are_what_the_layer_received():
    policy = TickPolicy(num_steps=4)
    bac.wrap(policy, bac.Schedule(4, {"tick0": (0, 2)}), blocks=policy.blocks())
    features = record_features(policy, {"obs": torch.zeros(1, 1)}, blocks=policy.blocks())
    assert features["tick0"].flatten().tolist() == [1, 1, 2, 2]


def test_features_count_samples_in_the_second_dimension_whatever_the_layout_of_the_layers():
    policy = TinyTransformerPolicy()
    assert record_features(policy, obs(3))["decoder.layers.0.ffn"].shape == (7, 3, 5, 12)


def test_zarr_round_trip_is_the_identity(tmp_path):
    measured = bac.calibrate(TinyTransformerPolicy(), [obs(3)], progress=False)
    measured.save(tmp_path / "calibration.zarr")
    loaded = Calibration.load(tmp_path / "calibration.zarr")
    assert (loaded.num_steps, loaded.num_runs, loaded.fingerprint) == (7, 3, measured.fingerprint)
    assert [(b.name, b.kind, b.layer) for b in loaded.blocks] == [(b.name, b.kind, b.layer) for b in measured.blocks]
    for name in ("similarity", "similarity_std", "half_similarity", "caching_error", "half_caching_error"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(measured, name))


def test_something_that_is_no_calibration_is_refused(tmp_path):
    import zarr

    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    for path, message in (
        ("other.zarr", "is not complete: lacks caching_error, "),
        ("absent.zarr", "there is no such"),
    ):
        with pytest.raises(CalibrationError, match=rf"{path}: {message}.* Make it anew: bac calibrate --policy-path"):
            Calibration.load(tmp_path / path)


def test_a_wrapped_policy_is_not_calibrated():
    policy = TinyTransformerPolicy()
    bac.wrap(policy, sweep(policy, (0, 3), 7))
    with pytest.raises(CalibrationError, match=r"bac\.unwrap\(policy\)"):
        bac.calibrate(policy, [obs(3)], progress=False)


def test_a_training_policy_is_not_calibrated():
    with pytest.raises(CalibrationError, match=r"policy\.eval\(\)"):
        bac.calibrate(TinyTransformerPolicy().train(), [obs(3)], progress=False)


@pytest.mark.parametrize("batches", [[], [obs(1)]])
def test_fewer_than_two_observations_are_refused(batches):
    with pytest.raises(CalibrationError, match="give at least two"):
        bac.calibrate(TinyTransformerPolicy(), batches, progress=False)


def test_one_batch_instead_of_several_is_told_apart():
    with pytest.raises(CalibrationError, match=r"pass \[batch\]"):
        bac.calibrate(TinyTransformerPolicy(), obs(3), progress=False)


def test_no_noise_draw_is_refused():
    with pytest.raises(CalibrationError, match="num_draws: must be at least 1, got 0"):
        bac.calibrate(TinyTransformerPolicy(), [obs(3)], num_draws=0, progress=False)


def test_features_that_are_not_finite_are_refused_by_name():
    policy = TinyTransformerPolicy()
    policy.decoder.layers[1].linear2.bias.data.fill_(float("nan"))
    with pytest.raises(CalibrationError, match=r"decoder\.layers\.\d\.\w+: its output holds NaN"):
        bac.calibrate(policy, [obs(3)], progress=False)


def test_a_number_of_steps_that_changes_is_refused():
    with pytest.raises(CalibrationError, match="made 3 denoising steps after 2"):
        accumulate(torch.ones(2, 1, 1), torch.ones(3, 1, 1))


def test_a_block_evaluated_less_often_than_the_others_is_named():
    policy = TickPolicy(num_blocks=2)
    policy.predict_action_chunk = lambda batch: [policy.ticks[0](batch["obs"]) for _ in range(3)]
    with pytest.raises(CalibrationError, match="tick1: evaluated 0 times in a denoising run, but tick0 3 times"):
        bac.calibrate(policy, [{"obs": torch.zeros(2, 1)}], blocks=policy.blocks(), progress=False)
