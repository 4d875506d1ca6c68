"""The number of dense steps that take as long as the best cached run, timed in turns at several batch sizes.

``python -m eval.experiments.images.timing results/images/ddim`` reads the measurement in that folder and writes
``timing.json`` to it. The stored features of ten pictures mostly fit into a core's own cache, those of 40 do not, so
the result depends on the batch size.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from math import ceil
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

import bac
from bac.adapters import find_host
from bac.solvers import Multistep
from bac.tuning.timing import interleaved
from eval.experiments.images.experiment import AIM_SHARE, ImageRow, best_of
from eval.experiments.images.features import psnr
from eval.experiments.images.loop import DenoisingLoop
from eval.experiments.images.methods import DENSE, FEWER
from eval.experiments.images.model import load_transformer, make_loop
from eval.experiments.images.sampling import applied, batch_of, pictures, ready
from eval.experiments.methods.catalogue import method
from eval.setup.cells import Cell, dense
from eval.setup.files import write_json
from eval.setup.provenance import provenance

SHARES = (0.2, 0.24, 0.28, 0.32, 0.4)  # shares of K: a line of latency over steps is fitted to these dense runs


def steps_as_long(steps: Sequence[int], costs: Sequence[float], cost: float) -> int:
    """The fewest steps that take at least `cost`, by a line fitted to `costs` over `steps`."""
    slope, offset = np.polyfit(steps, costs, 1)
    return ceil(round((cost - offset) / slope, 6))


def compare(loop: DenoisingLoop, best: Cell, batch_size: int, rounds: int) -> dict[str, Any]:
    """Time one method interleaved with dense runs of all steps and of fewer; ratios are taken within each round."""
    steps = [round(share * best.num_steps) for share in SHARES]
    batch = batch_of(batch_size, seed=0)
    rivals = (method(FEWER, dense(count, best.solver)) for count in steps)
    loops = [ready(loop, cell, batch) for cell in (method(DENSE, best.sampler), best, *rivals)]
    calls = {place: partial(mine.predict_action_chunk, batch) for place, mine in enumerate(loops)}
    whole, cached, *fewer = ([its.cpu_s for its in samples] for samples in interleaved(calls, rounds).values())
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


def fidelity(loop: DenoisingLoop, cell: Cell, count: int, seeds: Sequence[int]) -> list[float]:
    """Measure PSNR to the uncached pictures, seed by seed [dB]."""
    made = []
    for each in (cell, dense(loop.num_inference_steps, cell.solver)):
        with applied(loop, each):
            made.append([pictures(loop, batch_of(count, seed)) for seed in seeds])
    return [round(psnr(images, uncached), 3) for images, uncached in zip(*made, strict=True)]


def cell_of_row(loop: DenoisingLoop, row: ImageRow) -> Cell:
    """The method of a row. Its blocks must share their update steps, or its solver must be fitted."""
    if row.weights:
        denoising = bac.Denoising(Multistep(row.weights), row.places)
    else:
        updates = {block.name: row.places for block in find_host(loop).blocks}
        denoising = bac.Denoising(schedule=bac.Schedule(row.num_steps, updates, estimator=row.estimator))
    return method(row.scheduler, dense(row.num_steps, row.solver), denoising)


def main() -> None:
    """Time the best method of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads((options.folder / "rows.json").read_text())
    row = best_of(map(ImageRow.from_document, record["rows"]), AIM_SHARE)
    loop = make_loop(load_transformer(), row.num_steps)
    best = cell_of_row(loop, row)
    timings = [compare(loop, best, size, options.rounds) for size in options.batch_sizes]
    for timing in timings:
        rival = method(FEWER, dense(timing["steps_as_long"], row.solver))
        timing["psnr"] = fidelity(loop, rival, record["num_images"], range(len(row.psnr)))
        timing["gain_db"] = round(mean(row.psnr) - mean(timing["psnr"]), 2)
        print(json.dumps(timing))
    found = {"provenance": provenance(), "method": f"{row.scheduler} + {row.estimator}", "timings": timings}
    write_json(options.folder / "timing.json", found)


if __name__ == "__main__":
    main()
