"""What each lever gives LeRobot's pi0 and SmolVLA on a GPU, at full size, in a few minutes of its time.

``python -m eval.experiments.lerobot preset=gpu output=results/gpu``. Every row is timed by turns with the untouched
policy, printed and written as soon as it is measured, so a run that is cut short leaves what it has. The weights are
random: latencies are valid, and success is not measured. ``sizes=tiny`` goes the same way through each line on a CPU.
"""

from __future__ import annotations

import copy
import gc
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.cli.stages import stages
from bac.errors import BacError
from bac.files import write_text
from bac.recording import watching
from bac.tuning.timing import interleaved
from eval.experiments.lerobot.full_sizes import SIZES, seen
from eval.setup.files import write_json
from eval.setup.provenance import provenance

logger = logging.getLogger(__name__)
NUM_BUBBLED = 2
HEADER = (
    "| way | p50 [ms] | p95 [ms] | untouched beside it [ms] | x | action error | operators | plan [MB] | peak [GB] |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


@dataclass(frozen=True)
class Row:
    """One way, timed by turns with the untouched policy.

    Attributes:
        name: What it is.
        p50_ms: Median latency of a chunk [ms].
        p95_ms: 95th percentile [ms].
        untouched_ms: Median of the untouched policy in the same turns [ms].
        action_error: Root mean square difference to the untouched chunk from the same noise, normalised units.
        operators: Operators of a replay, views not counted; None if nothing is replayed.
        plan_mb: Memory of the plan besides the weights [MB].
        peak_gb: Largest memory of the process on the GPU [GB]; None on a CPU.
        why_not: Why it could not be measured; empty if it was.
    """

    name: str
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    untouched_ms: float = 0.0
    action_error: float = 0.0
    operators: int | None = None
    plan_mb: float = 0.0
    peak_gb: float | None = None
    why_not: str = ""

    def __str__(self) -> str:
        if self.why_not:
            return f"| {self.name} | not measured: {self.why_not} | | | | | | | |"
        times = self.untouched_ms / self.p50_ms
        operators = "" if self.operators is None else f"{self.operators:,}"
        peak = "" if self.peak_gb is None else f"{self.peak_gb:.2f}"
        return (
            f"| {self.name} | {self.p50_ms:.1f} | {self.p95_ms:.1f} | {self.untouched_ms:.1f} | {times:.2f} | "
            f"{self.action_error:.1e} | {operators} | {self.plan_mb:.0f} | {peak} |"
        )


class OnGPU:
    """One policy, run in every way.

    Args:
        policy: Untouched, in eval mode.
        rounds: Chunks to time of each way.
    """

    def __init__(self, policy: nn.Module, rounds: int) -> None:
        self.policy, self.rounds, self.batch = policy, rounds, seen(policy)
        self.host = find_host(policy)
        self.num_steps = self.host.num_steps or 1
        self.device = next(policy.parameters()).device
        self.own = self.host.predict_seeded(self.batch, 0)

    def ways(self) -> dict[str, tuple[bac.Denoising, bool]]:
        """Ways to denoise by name, and whether each is replayed."""
        few = max(1, self.num_steps * 3 // 10)
        ways = {"replayed": (bac.Denoising(), True)}
        ways |= {f"replayed, {name}": (bac.Denoising(precision=name), True) for name in ("tf32", "bf16")}
        ways[f"{few} own steps"] = bac.Denoising(num_steps=few), False
        ways[f"{few} own steps, replayed"] = bac.Denoising(num_steps=few), True
        ways[f"{few} own steps, replayed, tf32"] = bac.Denoising(num_steps=few, precision="tf32"), True
        for updates in (self.num_steps // 2, few):
            schedule = bac.Denoising(schedule=self._schedule(updates))
            ways[f"BAC S={updates} n={NUM_BUBBLED}"] = schedule, False
            ways[f"BAC S={updates} n={NUM_BUBBLED}, replayed"] = schedule, True
        return ways

    def row(self, name: str, denoising: bac.Denoising, *, replayed: bool) -> Row:
        """Time one way by turns with the untouched policy."""
        policy = self._copy()
        self._forget_peak()
        try:
            bac.wrap(policy, denoising, replay=bac.Replay(record="ahead") if replayed else False, strict=False)
            plan = bac.plan.record(policy, dict(self.batch)) if replayed else None
        except BacError as error:
            return Row(name, why_not=str(error).splitlines()[0])
        chunk = find_host(policy).predict_seeded(self.batch, 0)
        calls = {kind: (lambda one=one: self._chunk(one)) for kind, one in (("own", self.policy), (name, policy))}
        taken = interleaved(calls, self.rounds)
        own, mine = (1e3 * np.array([sample.wall_s for sample in taken[kind]]) for kind in calls)
        return Row(
            name,
            p50_ms=float(np.median(mine)),
            p95_ms=float(np.quantile(mine, 0.95)),
            untouched_ms=float(np.median(own)),
            action_error=float((chunk.double() - self.own.double()).square().mean().sqrt()),
            operators=None if plan is None else plan.num_operations,
            plan_mb=0.0 if plan is None else plan.num_bytes / 1e6,
            peak_gb=torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else None,
        )

    def stages(self) -> dict[str, float]:
        """Milliseconds of an untouched chunk by stage; the stopwatch adds to them."""
        return {name: 1e3 * seconds for name, seconds in stages(self.host, self.batch, 3).items()}

    def _chunk(self, policy: nn.Module) -> Tensor:
        chunk = find_host(policy).predict_seeded(self.batch, 0)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return chunk

    def _schedule(self, num_updates: int) -> bac.Schedule:
        with watching(self.policy) as watch:
            for seed in range(2):
                self.host.predict_seeded(self.batch, seed)
        return bac.adaptive_schedule(watch.calibration(), num_updates=max(1, num_updates), num_bubbled=NUM_BUBBLED)

    def _copy(self) -> nn.Module:
        """A copy that shares the weights."""
        return copy.deepcopy(self.policy, {id(parameter): parameter for parameter in self.policy.parameters()})

    def _forget_peak(self) -> None:
        gc.collect()  # the copy before, with its plan
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def measure_all(
    names: Sequence[str], device: str, folder: Path, *, sizes: str = "full", rounds: int = 15, limit_s: float = 280.0
) -> None:
    """Measure policies one after the other, and write ``lerobot.md`` and ``lerobot.json`` after every row.

    Args:
        names: Policies of `SIZES`.
        device: ``cuda`` or ``cpu``.
        folder: Folder of the results.
        sizes: ``full`` or ``tiny``.
        rounds: Chunks to time of each way.
        limit_s: No row begins after so much time [s]; those left out are named.

    Raises:
        SystemExit: There is no such device, size or policy.
    """
    if sizes not in SIZES:
        raise SystemExit(f"sizes: must be one of {', '.join(SIZES)}, got {sizes}")
    if unknown := set(names) - set(SIZES[sizes]):
        raise SystemExit(f"models: must be among {', '.join(SIZES[sizes])}, got {', '.join(sorted(unknown))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("device: full sizes need a GPU with CUDA, and there is none here; for a dry run: sizes=tiny")
    started, made, found = time.perf_counter(), provenance(), {}
    card = torch.cuda.get_device_name() if device == "cuda" else made["device"]
    for name in names:
        torch.manual_seed(0)
        case = OnGPU(SIZES[sizes][name](device).eval(), rounds)
        found[name] = record = {"stages_ms": case.stages(), "rows": []}
        logger.info("%s, %d steps, on %s\n%s", name, case.num_steps, card, HEADER)
        for way, (denoising, replayed) in case.ways().items():
            late = time.perf_counter() - started > limit_s
            row = Row(way, why_not="out of time") if late else case.row(way, denoising, replayed=replayed)
            record["rows"].append(row)
            logger.info("%s", row)
            _write(folder, found, card, made, rounds)
        del case
        gc.collect()


def _write(folder: Path, found: dict[str, Any], card: str, made: dict[str, Any], rounds: int) -> None:
    plain = {name: {**record, "rows": [asdict(row) for row in record["rows"]]} for name, record in found.items()}
    write_json(folder / "lerobot.json", {"policies": plain, "card": card, "rounds": rounds, "made": made})
    write_text(folder / "lerobot.md", "\n".join(_lines(found, card, made, rounds)) + "\n")


def _lines(found: dict[str, Any], card: str, made: dict[str, Any], rounds: int) -> Iterator[str]:
    yield (
        f"`{made['command']}` on {card}, torch {made['packages']['torch']}, {made['date']}: random weights, batch 1, "
        f"medians of {rounds} rounds by turns with the untouched policy."
    )
    for name, record in found.items():
        spent = ", ".join(f"{stage} {value:.1f}" for stage, value in record["stages_ms"].items() if value > 0)
        yield f"\n## {name}\n\nAn untouched chunk by stage [ms]: {spent}.\n\n{HEADER}"
        yield from map(str, record["rows"])
