"""Few-step solvers on the image model that flow matching trained, judged by the measures of the caching table.

``python -m eval.experiments.images.flow results/images/flow`` compares the model's own even steps, its own steps at
searched times, and fitted ones, with a fine run of the same flow. Times and coefficients come from pictures of other
noise. A denoising run costs its number of steps, so no latency is measured.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import bac
from bac.adapters import find_host
from bac.files import write_text
from bac.solvers import AdamsBashforth, FlowFitter, Multistep
from bac.tuning.reference import fine_run
from eval.experiments.images.data import load
from eval.experiments.images.features import Classifier, frechet_distance, load_classifier, psnr
from eval.experiments.images.loop import DenoisingLoop
from eval.experiments.images.methods import CALIBRATION_SEED
from eval.experiments.images.model import FLOW_CHECKPOINT, NUM_TRAIN_TIMESTEPS, load_transformer
from eval.experiments.images.sampling import batch_of, labels, pictures
from eval.setup.files import write_json
from eval.setup.provenance import provenance
from policies.diffusion_transformer.solvers import EvenFlowScheduler

OWN, TUNED, FITTED, FINE = "own even steps", "own steps, tuned times", "fitted, tuned times", "fine run"
EULER = AdamsBashforth(1)
STEPS, OWN_STEPS = (2, 3, 4, 5, 6), (10, 20, 50)
NUM_FITTED, NUM_IMAGES, SEEDS = 20, 40, (0, 1, 2)


@dataclass(frozen=True)
class FlowRow:
    """One way to denoise, measured.

    Attributes:
        way: ``own even steps``, ``own steps, tuned times``, ``fitted, tuned times`` or ``fine run``.
        num_steps: Denoising steps K.
        times: Shares of noise, `[K]`; empty for even steps.
        coefficients: Of the fitted solver, `[K, 5]`.
        psnr: PSNR to the pictures of the fine run, for every seed [dB]; empty for that run.
        frechet_fine: Frechet distance to the fine run's pictures of all seeds, in the classifier's features.
        frechet_real: Frechet distance to the pictures that the model was trained on.
        accuracy: Share of the pictures that the classifier reads as their label, in [0, 1].
    """

    way: str
    num_steps: int
    times: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    psnr: tuple[float, ...]
    frechet_fine: float
    frechet_real: float
    accuracy: float


def make_flow_loop(transformer: Any, num_inference_steps: int = 10) -> DenoisingLoop:
    """Make the denoising loop around a transformer that flow matching trained, in even steps of its own."""
    return DenoisingLoop(transformer, EvenFlowScheduler(NUM_TRAIN_TIMESTEPS), num_inference_steps).eval()


def ways(loop: DenoisingLoop, steps: Sequence[int], own_steps: Sequence[int]) -> Iterator[tuple[str, bac.Denoising]]:
    """Ways to denoise, the fine run first. Those with times of their own are fitted on pictures of other noise."""
    yield FINE, fine_run(find_host(loop))
    batch = batch_of(NUM_FITTED, CALIBRATION_SEED)
    fitter = FlowFitter(find_host(loop), lambda: loop.predict_action_chunk(batch))
    for num_steps in steps:
        yield OWN, bac.Denoising(num_steps=num_steps)
        for name, make in ((TUNED, lambda times: fitter.at(EULER, times)), (FITTED, fitter.fit)):
            found = fitter.search(make, num_steps)
            yield name, bac.Denoising(found.solver, found.times)
    yield from ((OWN, bac.Denoising(num_steps=num_steps)) for num_steps in own_steps)


def made_by(loop: DenoisingLoop, way: bac.Denoising, count: int, seeds: Sequence[int]) -> list[Tensor]:
    """Pictures of every seed, `[B, 1, 8, 8]` each."""
    bac.wrap(loop, way, replay=False)
    try:
        return [pictures(loop, batch_of(count, seed)) for seed in seeds]
    finally:
        bac.unwrap(loop)


def measure(
    loop: DenoisingLoop,
    classifier: Classifier,
    *,
    steps: Sequence[int] = STEPS,
    own_steps: Sequence[int] = OWN_STEPS,
    count: int = NUM_IMAGES,
    seeds: Sequence[int] = SEEDS,
) -> Iterator[FlowRow]:
    """Measure every way on the same noise."""
    real, classes = classifier.features(load()[0].images), torch.tensor(labels(count) * len(seeds))
    fine: list[Tensor] = []
    for name, way in ways(loop, steps, own_steps):
        images = made_by(loop, way, count, seeds)
        fine = fine or images
        features = classifier.features(torch.cat(images))
        yield FlowRow(
            name,
            way.num_evaluations or 0,
            way.timesteps if name in (TUNED, FITTED) else (),
            way.solver.coefficients if isinstance(way.solver, Multistep) else (),
            () if name == FINE else tuple(round(psnr(its, other), 3) for its, other in zip(images, fine, strict=True)),
            round(frechet_distance(features, classifier.features(torch.cat(fine))), 4),
            round(frechet_distance(features, real), 4),
            round(classifier.accuracy(torch.cat(images), classes), 4),
        )


def table(rows: Sequence[FlowRow]) -> Iterator[str]:
    """Yield the table's Markdown lines."""
    yield "| K | way | PSNR to the fine run [dB] | FD fine | FD real | accuracy | times |"
    yield "|---:|---|---|---|---|---|---|"
    for row in rows:
        close = f"{mean(row.psnr):.1f} ({min(row.psnr):.1f} to {max(row.psnr):.1f})" if row.psnr else "-"
        judged = f"{row.frechet_fine:.2f} | {row.frechet_real:.2f} | {row.accuracy:.3f}"
        times = ", ".join(f"{time:g}" for time in row.times) or "-"
        yield f"| {row.num_steps} | {row.way} | {close} | {judged} | {times} |"


def main() -> None:
    """Measure, print the table, and write ``rows.json`` and ``table.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    rows = list(measure(make_flow_loop(load_transformer(FLOW_CHECKPOINT)), load_classifier()))
    text = "\n".join(table(rows)) + "\n"
    print(text)
    write_json(folder / "rows.json", {"provenance": provenance(), "rows": [asdict(row) for row in rows]})
    write_text(folder / "table.md", text)


if __name__ == "__main__":
    main()
