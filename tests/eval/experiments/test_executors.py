from __future__ import annotations

import json

import pytest
import torch
from omegaconf import OmegaConf

import eval.experiments.latency.ways as ways_module
from eval.experiments.latency.experiment import records_of, summary
from eval.experiments.latency.random_policy import Setting
from eval.experiments.latency.report import table, write
from eval.experiments.latency.ways import WayMaker, compiled_ways, made, quick_ways
from eval.measure.latency import measure
from eval.setup.config import CONFIGS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

QUICK_KEYS = {
    "dense_eager_ms",
    "dense_replay_ms",
    "interpret_ms",
    "replay_exact_ms",
    "replay_fast_ms",
    "uniform10_replay_fast_ms",
    "flops_ratio",
    "exact_bit_equal",
    "fast_max_error",
    "build_s",
}


SMALL = {"layers": 1, "width": 16, "heads": 2, "num_steps": 10, "num_updates": 5, "num_bubbled": 2}


def test_precomputed_coefficients_make_the_same_chunk():
    maker = WayMaker(Setting(**SMALL))
    torch.manual_seed(0)
    expected = maker.eager().call()
    torch.manual_seed(0)
    torch.testing.assert_close(maker.precomputed().call(), expected, rtol=1e-4, atol=1e-5)


def test_the_quick_ways_make_the_record_that_is_promised():
    ways = made(quick_ways(WayMaker(Setting(**SMALL))))
    latencies = measure({name: way.call for name, way in ways.items()}, rounds=1, progress=False)
    record = summary(ways, latencies)
    assert set(record) == QUICK_KEYS
    assert record["exact_bit_equal"] is True
    assert record["fast_max_error"] <= 1e-5
    assert ways["dense_eager"].flops_ratio == 1.0
    assert ways["uniform10_replay_fast"].flops_ratio > 1.0
    assert [line.split()[0] for line in table(ways, latencies)][1:] == list(ways)


def test_one_setting_is_written_flat_and_several_side_by_side(tmp_path):
    preset = {"ways": "quick", "rounds": 1, "warmup": 0, "base": SMALL, "settings": [{}], "options": {}}
    records = records_of(preset)
    write(records, tmp_path / "one.json", figure=False)
    write(records * 2, tmp_path / "two.json", figure=True)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two == {"settings": [one, one]}
    assert one["rows"]["interpret"]["p50_ms"] == one["interpret_ms"]
    assert "exact replay is bit-equal to the interpreter" in (tmp_path / "one.md").read_text()
    assert (tmp_path / "two.png").stat().st_size > 10_000
    assert not (tmp_path / "one.png").exists()


def test_compiled_runs_stand_beside_what_they_are_compiled_from(monkeypatch):
    monkeypatch.setattr(ways_module, "INDUCTOR", ways_module.FAST)  # the compiler has its own tests, and takes a minute
    ways = made(compiled_ways(WayMaker(Setting(**SMALL))))
    for run in ("dense", "ddim4"):
        assert ways[f"{run}_compiled"].plan.num_operations == ways[f"{run}_replay_fast"].plan.num_operations
    assert ways["bac_compiled"].plan.num_operations == ways["replay_fast"].plan.num_operations
    assert set(quick_ways(WayMaker(Setting(**SMALL)))) < set(ways)


def test_the_dry_run_goes_through_every_line_of_the_gpu_preset():
    presets = OmegaConf.to_container(OmegaConf.load(f"{CONFIGS}/latency.yaml").presets)
    dry, gpu = presets["dry"], presets["gpu"]
    assert [dry[key] for key in ("ways", "figure", "options")] == [gpu[key] for key in ("ways", "figure", "options")]
    (record,) = records_of({**dry, "settings": dry["settings"][:1]})
    assert {"once_replay_fast_ms", "ddim16_replay_ms", "reused_steps_solver_ms"} < set(record)
    assert record["exact_bit_equal"]
