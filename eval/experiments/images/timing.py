"""How many dense steps take as long as the best cached run: timed in turns, at several batch sizes.

``python -m eval.experiments.images.timing results/images/ddim`` reads a measurement and writes ``timing.json`` beside it. What the
cache stores of 40 pictures leaves a core's own cache, of ten it mostly does not; so the answer depends on the batch.
"""

import argparse
import json
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bac
from bac.adapters import find_host
from bac.caching.estimators import named
from eval.experiments.images.experiment import AIM_SHARE, Row, best_of
from eval.experiments.images.features import psnr
from eval.experiments.images.loop import DenoisingLoop
from eval.experiments.images.methods import FEWER
from eval.experiments.images.model import load_transformer, make_loop
from eval.experiments.images.sampling import Method, applied, batch_of, ready, sample
from eval.setup.provenance import provenance

SHARES = (0.2, 0.24, 0.28, 0.32, 0.4)  # of K: dense runs that a line of latency over steps is drawn through


def timed(loops: Sequence[DenoisingLoop], batch: dict[str, Tensor], rounds: int) -> list[list[float]]:
    """CPU time of every loop in every round, one after the other [s]."""
    seconds: list[list[float]] = [[] for _ in loops]
    for _ in range(rounds):
        for mine, loop in zip(seconds, loops, strict=True):
            start = time.process_time()
            loop.predict_action_chunk(batch)
            mine.append(time.process_time() - start)
    return seconds


def steps_as_long(steps: Sequence[int], costs: Sequence[float], cost: float) -> int:
    """The fewest steps that take at least as long, by the line through what runs of some steps take."""
    slope, offset = np.polyfit(steps, costs, 1)
    return ceil(round((cost - offset) / slope, 6))


def compare(loop: DenoisingLoop, best: Method, batch_size: int, rounds: int) -> dict[str, Any]:
    """Time one method between dense runs of as many steps and fewer; ratios are taken within each round."""
    dense = Method("dense", best.solver, best.stands_for or best.num_steps)
    steps = [round(share * dense.num_steps) for share in SHARES]
    batch = batch_of(batch_size, seed=0)
    methods = [dense, best, *(Method(FEWER, best.solver, count) for count in steps)]
    whole, cached, *fewer = timed([ready(loop, method, batch) for method in methods], batch, rounds)
    ratio, *others = (median(a / b for a, b in zip(mine, whole, strict=True)) for mine in (cached, *fewer))
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "dense_ms": round(1000 * median(whole), 2),
        "cached_ms": round(1000 * median(cached), 2),
        "speedup": round(1 / ratio, 3),
        "speedup_of_fewer": {count: round(1 / other, 3) for count, other in zip(steps, others, strict=True)},
        "steps_as_long": steps_as_long(steps, others, ratio),
    }


def fidelity(loop: DenoisingLoop, method: Method, count: int, seeds: Sequence[int]) -> list[float]:
    """PSNR to the uncached pictures, seed by seed [dB]."""
    made = []
    for each in (method, Method("dense", method.solver, loop.num_inference_steps)):
        with applied(loop, each):
            made.append([sample(loop, count, seed).images for seed in seeds])
    return [round(psnr(images, dense), 3) for images, dense in zip(*made, strict=True)]


def method_of(loop: DenoisingLoop, row: Row) -> Method:
    """The method of a row whose update steps all blocks share, or whose solver was fitted."""
    places = tuple(row.places)
    if row.weights:
        given = {"timesteps": places, "weights": tuple(map(tuple, row.weights)), "stands_for": row.num_steps}
        return Method(row.scheduler, row.solver, len(places), **given)
    schedule = bac.Schedule(row.num_steps, dict.fromkeys([block.name for block in find_host(loop).blocks], places))
    return Method(row.scheduler, row.solver, row.num_steps, schedule, named(row.estimator))


def main() -> None:
    """Time the best method of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads((options.folder / "rows.json").read_text())
    row = best_of((Row(**row) for row in record["rows"]), AIM_SHARE)
    loop = make_loop(load_transformer(), row.num_steps)
    best = method_of(loop, row)
    timings = [compare(loop, best, size, options.rounds) for size in options.batch_sizes]
    for timing in timings:
        rival = Method(FEWER, row.solver, timing["steps_as_long"])
        timing["psnr"] = fidelity(loop, rival, record["num_images"], range(len(row.psnr)))
        timing["gain_db"] = round(mean(row.psnr) - mean(timing["psnr"]), 2)
        print(json.dumps(timing))
    found = {"provenance": provenance(), "method": f"{row.scheduler} + {row.estimator}", "timings": timings}
    (options.folder / "timing.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
