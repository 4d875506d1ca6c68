"""The presets' experiment, on an untrained policy."""

import re
import sys

import pytest
import torch
from lerobot.utils.constants import OBS_STATE

import bac
from eval.experiments.presets import COLUMNS, main, observations
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from tests.policies.models import small_policy, write_demonstrations
from tests.policies.test_modeling import STATS


@pytest.fixture
def arrays(tmp_path):
    return write_demonstrations(tmp_path / "demo.zarr", lengths=[23, 19])


def test_observations_are_pairs_of_successive_steps_spread_over_the_demonstrations(tmp_path, arrays):
    batch = observations(lambda given: given, tmp_path / "demo.zarr", 3)
    state = torch.from_numpy(arrays["state"])
    assert torch.equal(batch[OBS_STATE], torch.stack([state[[0, 1]], state[[20, 21]], state[[40, 41]]]))
    assert "action" not in batch


@pytest.mark.slow
def test_every_preset_is_written_and_judged(tmp_path, arrays, monkeypatch, capsys):
    policy = small_policy(n_layer=1, noise_scheduler_type="FlowMatchEuler", prediction_type="velocity")
    policy.save_pretrained(tmp_path / "toy")
    sides = make_diffusion_transformer_pre_post_processors(policy.config, STATS)
    for processor, side in zip(sides, ("pre", "post"), strict=True):
        processor.save_pretrained(tmp_path / "toy", config_filename=f"policy_{side}processor.json")
    (tmp_path / "found").mkdir()
    where = [str(tmp_path / "toy"), str(tmp_path / "demo.zarr")]
    monkeypatch.setattr(
        sys, "argv", ["presets", "--fit", *where, "--judge", *where, "--output", str(tmp_path / "found")]
    )
    main()
    for num_steps in (2, 3, 4):
        way = bac.load(tmp_path / "found" / f"flow-{num_steps}.json")
        assert way.num_evaluations == num_steps
        known = r"fitted on toy, 64 observations, to a fine run of its flow; action error on toy 0\.\d+, its own even"
        assert re.match(known, way.fingerprint.calibration)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| toy")]
    assert [line.split("|")[2].strip() for line in lines] == ["2", "3", "4", "10"]
    for line in lines[:3]:
        own, _, preset, fitted = (float(cell.split("/")[1]) for cell in line.split("|")[3 : 3 + len(COLUMNS)])
        assert max(fitted, preset) < own
