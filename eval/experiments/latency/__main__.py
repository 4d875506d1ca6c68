"""What the executors' benchmark tells: ``python -m eval.experiments.latency preset=quick output=FILE.json``.

All rows of a setting run interleaved in one process. The output is a JSON for programs, and beside it a table and a
figure for readers.
"""

import gc
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

from eval.setup.config import CONFIGS, log_to_terminal
from eval.experiments.latency.rows import Bench, Row, all_rows, quick_rows
from eval.experiments.latency.kernels import kernel_load
from eval.measure.latency import Latency, measure
from eval.setup.provenance import command_line, processor
from eval.experiments.latency.random_policy import Setting

logger = logging.getLogger(__name__)


def compare_numbers(rows: dict[str, Row]) -> dict[str, Any]:
    """Whether exact replay equals the interpreter, and how far re-associated replay is from it."""
    worst, equal = 0.0, True
    for seed in range(3):
        chunks = {}
        for name in ("interpret", "replay_exact", "replay_fast"):
            torch.manual_seed(seed)
            chunks[name] = rows[name].call()
        expected = chunks["interpret"]
        equal &= torch.equal(chunks["replay_exact"], expected)
        worst = max(worst, float((chunks["replay_fast"] - expected).abs().max() / expected.abs().max()))
    return {"exact_bit_equal": equal, "fast_max_error": worst}


def summary(rows: dict[str, Row], latencies: dict[str, Latency]) -> dict[str, Any]:
    """The flat record of a preset: ``<row>_ms`` and what explains them."""
    record: dict[str, Any] = {f"{name}_ms": latency.p50_ms for name, latency in latencies.items()}
    record["flops_ratio"] = rows["replay_exact"].flops_ratio
    record |= compare_numbers(rows)
    if "once_replay_fast" in rows:  # one full evaluation with, and without K - 1 steps that reuse every block
        for way, rest in (("exact", "no_block"), ("fast", "solver")):  # the closed form needs no embedding and no head
            extra_ms = latencies[f"once_replay_{way}"].p50_ms - latencies[f"ddim1_replay_{way}"].p50_ms
            extra_ms -= latencies[f"reused_steps_{rest}"].p50_ms
            record[f"reused_block_{way}_us"] = 1e3 * extra_ms / rows["once_replay_fast"].num_reused
    record["build_s"] = rows["replay_exact"].plan.build_s
    return record


def table(rows: dict[str, Row], latencies: dict[str, Latency]) -> Iterator[str]:
    """Lines to print. `limit` is the speed-up over dense replayed as a share of the FLOPs ratio."""
    yield f"{'':24} {'p50 ms':>8} {'p95 ms':>8} {'x eager':>8} {'FLOPs':>6} {'limit':>6} {'operators':>10}"
    replayed = latencies["dense_replay"].p50_ms
    for name, latency in latencies.items():
        row = rows[name]
        share = replayed / latency.p50_ms / row.flops_ratio
        operators = f"{row.plan.num_operations:10,}" if row.plan else ""
        yield (
            f"{name:24} {latency.p50_ms:8.1f} {latency.p95_ms:8.1f} {latency.speedup:8.2f} {row.flops_ratio:6.2f} "
            f"{share:6.0%} {operators}"
        )


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="latency")
def main(config: Any) -> None:
    """Run a preset."""
    log_to_terminal()
    presets = OmegaConf.to_container(config.presets, resolve=True)
    if config.preset not in presets:
        raise SystemExit(f"preset: must be one of {', '.join(presets)}, got {config.preset}")
    run_preset({**presets[config.preset], "output": config.output})


def run_preset(config: Any) -> dict[str, Any]:
    """Measure one preset, print its table, write its JSON.

    Args:
        config: `configs/latency.yaml`, resolved.
    """
    torch.set_num_threads(1)
    gc.disable()  # plans are millions of small objects, all kept: looking for garbage among them takes seconds
    records = []
    for changes in config["settings"]:
        setting = Setting(**{**config["base"], **changes})
        logger.info("%s", setting)
        bench = Bench(setting)
        rows = quick_rows(bench) if config["rows"] == "quick" else all_rows(bench, **config["options"])
        calls = {name: row.call for name, row in rows.items()}
        latencies = measure(calls, rounds=config["rounds"], warmup=config["warmup"])
        record = {**summary(rows, latencies), "table": list(table(rows, latencies))}
        for line in record["table"]:
            logger.info(line)
        details = {name: latency.to_dict() for name, latency in latencies.items()}
        if setting.device == "cuda":
            for name, row in rows.items():
                load = kernel_load(row.call)
                share = load.launch_bound(latencies[name].p50_ms)
                details[name] |= {"num_kernels": load.num_kernels, "busy_ms": load.busy_ms, "launch_bound": share}
                record["table"].append(f"{name:24} {load.num_kernels:8,} kernels, launch-bound {share:4.0%}")
        records.append({**record, "setting": vars(setting), "rows": details, "machine": _machine(setting)})
        del bench, rows
        gc.collect()
    result = records[0] if len(records) == 1 else {"settings": records}
    if config["output"]:
        path = Path(config["output"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text(_report(records))
        if config["figure"]:
            _draw(records, path.with_suffix(".png"))
    return result


def _report(records: list[dict[str, Any]]) -> str:
    """Markdown: a table for each setting, and how it came about."""
    parts = [f"Made by `{command_line()}`.\n"]
    for record in records:
        setting, machine = record["setting"], record["machine"]
        parts.append(
            f"{machine['device']}, torch {machine['torch']}, {machine['threads']} thread, {setting['dtype']}, batch "
            f"{setting['batch_size']}, DP-T {setting['layers']} x {setting['width']}, K = {setting['num_steps']}, "
            f"BAC S = {setting['num_updates']}, n = {setting['num_bubbled']} on random weights; exact replay is "
            f"{'' if record['exact_bit_equal'] else 'not '}bit-equal to the interpreter, re-associated within "
            f"{record['fast_max_error']:.1e} of it; samples: {next(iter(record['rows'].values()))['num_samples']}, "
            f"clock: {next(iter(record['rows'].values()))['clock']}.\n"
        )
        parts.append("```\n" + "\n".join(record["table"]) + "\n```\n")
    return "\n".join(parts)


def _draw(records: list[dict[str, Any]], path: Path) -> None:
    """Bars of medians with 95th percentiles, one panel per setting."""
    from matplotlib.figure import Figure  # takes seconds, and quick runs draw nothing

    figure = Figure(figsize=(8, 0.4 + 0.32 * sum(len(record["rows"]) for record in records)), layout="constrained")
    for axes, record in zip(figure.subplots(len(records), squeeze=False)[:, 0], records, strict=True):
        rows = record["rows"]
        medians = [row["p50_ms"] for row in rows.values()]
        colours = [
            "C1" if "ddim" in name else "C0" if "replay" in name or name == "interpret" else "0.6" for name in rows
        ]
        axes.barh(
            list(rows),
            medians,
            color=colours,
            xerr=[[0] * len(rows), [r["p95_ms"] - r["p50_ms"] for r in rows.values()]],
        )
        for place, row in enumerate(rows.values()):
            axes.text(row["p95_ms"], place, f"  {row['speedup']:.1f}x", va="center", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(right=2 * max(row["p95_ms"] for row in rows.values()))
        axes.invert_yaxis()
        setting = record["setting"]
        axes.set_title(
            f"DP-T {setting['layers']} x {setting['width']}, K = {setting['num_steps']}; x: over eager dense"
        )
        axes.set_xlabel(
            f"latency p50, to p95 [ms]: batch {setting['batch_size']}, {setting['dtype']}, {setting['device']}"
        )
    figure.savefig(path, dpi=110)


def _machine(setting: Setting) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if setting.device == "cuda" else processor()
    return {"device": name, "torch": torch.__version__, "threads": torch.get_num_threads()}
