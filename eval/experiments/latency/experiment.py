"""Measure a preset. Every setting gives one record, and all ways are interleaved in one process."""

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from eval.experiments.latency.kernels import kernel_load
from eval.experiments.latency.random_policy import Setting
from eval.experiments.latency.report import table
from eval.experiments.latency.ways import Makers, Way, WayMaker, all_ways, compiled_ways, made, quick_ways
from eval.measure.latency import Latency, measure
from eval.setup.provenance import processor

logger = logging.getLogger(__name__)

_WAYS: Mapping[str, Callable[..., Makers]] = {
    "quick": quick_ways,
    "all": all_ways,
    "compiled": compiled_ways,
}


def records_of(
    preset: Mapping[str, Any], keep: Callable[[Sequence[dict[str, Any]]], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Measure every setting of a preset of ``configs/latency.yaml`` and log its table.

    Args:
        preset: The preset.
        keep: Called after each setting with the records so far, so that a run that is cut short leaves them.
    """
    records: list[dict[str, Any]] = []
    for changes in preset["settings"]:
        records.append(record_of(Setting(**{**preset["base"], **changes}), preset))
        keep(records)
        gc.collect()  # frees the plans of this setting; the command has switched automatic collection off
    return records


def record_of(setting: Setting, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one setting; returns plain JSON types."""
    logger.info("%s", setting)
    maker = WayMaker(setting)
    ways = made(_WAYS[preset["ways"]](maker, **preset["options"]))
    calls = {name: way.call for name, way in ways.items()}
    latencies = measure(calls, rounds=preset["rounds"], warmup=preset["warmup"])
    lines = list(table(ways, latencies))
    for line in lines:
        logger.info(line)
    details = {name: latency.to_dict() for name, latency in latencies.items()}
    if setting.device == "cuda":
        for name, found in loads(ways, latencies).items():
            details[name] |= found
            share = f"launch-bound {found['launch_bound']:4.0%}"
            lines.append(f"{name:24} {found['num_kernels']:8,} kernels, {share}")
    known = {"setting": vars(setting), "rows": details, "machine": machine(setting)}
    return {**summary(ways, latencies), "table": lines, **known}


def summary(ways: Mapping[str, Way], latencies: Mapping[str, Latency]) -> dict[str, Any]:
    """The flat record of a setting: every way's ``<way>_ms``, and the numbers that explain them."""
    record: dict[str, Any] = {f"{name}_ms": latency.p50_ms for name, latency in latencies.items()}
    record["flops_ratio"] = ways["replay_exact"].flops_ratio
    record |= compare_numbers(ways)
    if "once_replay_fast" in ways:
        record |= reused_block_costs(ways, latencies)
    record["build_s"] = ways["replay_exact"].plan.build_s
    return record


def compare_numbers(ways: Mapping[str, Way]) -> dict[str, Any]:
    """Compare replayed chunks with intercepted ones: whether exact replay is equal, and how far ``exact=False`` is off.

    Returns:
        ``exact_bit_equal``, and ``fast_max_error`` relative to the largest action, over three seeds.
    """
    worst, equal = 0.0, True
    for seed in range(3):
        chunks = {}
        for name in ("interpret", "replay_exact", "replay_fast"):
            torch.manual_seed(seed)
            chunks[name] = ways[name].call()
        expected = chunks["interpret"]
        equal &= torch.equal(chunks["replay_exact"], expected)
        worst = max(worst, float((chunks["replay_fast"] - expected).abs().max() / expected.abs().max()))
    return {"exact_bit_equal": equal, "fast_max_error": worst}


def reused_block_costs(ways: Mapping[str, Way], latencies: Mapping[str, Latency]) -> dict[str, float]:
    """Cost of a reused block [us]: one full evaluation with K - 1 steps that reuse every block, less one without."""
    costs = {}
    for kind, rest in (("exact", "no_block"), ("fast", "solver")):  # the closed form needs no embedding and no head
        extra_ms = latencies[f"once_replay_{kind}"].p50_ms - latencies[f"ddim1_replay_{kind}"].p50_ms
        extra_ms -= latencies[f"reused_steps_{rest}"].p50_ms
        costs[f"reused_block_{kind}_us"] = 1e3 * extra_ms / ways["once_replay_fast"].num_reused
    return costs


def loads(ways: Mapping[str, Way], latencies: Mapping[str, Latency]) -> dict[str, dict[str, float]]:
    """Number of kernels of every way on a GPU, their time, and the share of the latency in which none ran."""
    found = {name: kernel_load(way.call) for name, way in ways.items()}
    return {
        name: {
            "num_kernels": load.num_kernels,
            "busy_ms": load.busy_ms,
            "launch_bound": load.launch_bound(latencies[name].p50_ms),
        }
        for name, load in found.items()
    }


def machine(setting: Setting) -> dict[str, Any]:
    """Device, torch version and number of threads, as plain JSON types."""
    name = torch.cuda.get_device_name() if setting.device == "cuda" else processor()
    return {"device": name, "torch": torch.__version__, "threads": torch.get_num_threads()}
