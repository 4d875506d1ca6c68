from __future__ import annotations

import pytest
import torch

from eval.experiments.latency.rows import Bench, quick_rows
from eval.experiments.latency.__main__ import summary, table
from eval.measure.latency import measure
from eval.experiments.latency.random_policy import Setting

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


def test_precomputed_coefficients_make_the_same_chunk():
    bench = Bench(Setting(layers=1, width=16, heads=2, num_steps=10, num_updates=5, num_bubbled=2))
    torch.manual_seed(0)
    expected = bench.row(None, None).call()
    torch.manual_seed(0)
    torch.testing.assert_close(bench.precomputed_row().call(), expected, rtol=1e-4, atol=1e-5)


def test_the_quick_rows_make_the_record_that_is_promised():
    bench = Bench(Setting(layers=1, width=16, heads=2, num_steps=10, num_updates=5, num_bubbled=2))
    rows = quick_rows(bench)
    latencies = measure({name: row.call for name, row in rows.items()}, rounds=1, progress=False)
    record = summary(rows, latencies)
    assert set(record) == QUICK_KEYS
    assert record["exact_bit_equal"] is True
    assert record["fast_max_error"] <= 1e-5
    assert rows["dense_eager"].flops_ratio == 1.0
    assert rows["uniform10_replay_fast"].flops_ratio > 1.0
    assert [line.split()[0] for line in table(rows, latencies)][1:] == list(rows)
