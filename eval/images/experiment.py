"""The measurement: every method on the same noise, for several seeds, against the uncached model and real digits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import mean, median
from typing import Any

import torch
from tqdm import tqdm

from eval.images.data import Digits
from eval.images.features import Classifier, frechet_distance, psnr
from eval.images.methods import Product
from eval.images.sampling import Method, Samples, labels, sample


@dataclass(frozen=True)
class Row:
    """One method, measured.

    Attributes:
        scheduler: When blocks update; ``dense`` or ``fewer steps`` update all.
        estimator: What stands in for the others; ``none`` where all update.
        solver: One of `eval.images.sampling.SOLVERS`.
        num_steps: Denoising steps K.
        share: What was asked for: share of the block evaluations. For ``fewer steps``, of the rows at equal latency.
        cells: What is made, in (0, 1].
        latency_ms: Median CPU time of a batch on one thread [ms].
        speedup: The solver's dense latency over this one.
        psnr: To the uncached pictures of the same solver, for every seed [dB]; empty for these themselves.
        frechet_dense: To the uncached pictures of all seeds, in the classifier's features.
        frechet_real: To the pictures that the model was trained on.
        accuracy: Share of the pictures that are read as what they should show, in [0, 1].
        rival_psnr: Mean PSNR of the same solver with the fewest steps that take at least as long [dB].
        rival_steps: Its steps.
    """

    scheduler: str
    estimator: str
    solver: str
    num_steps: int
    share: float
    cells: float
    latency_ms: float
    speedup: float
    psnr: tuple[float, ...]
    frechet_dense: float
    frechet_real: float
    accuracy: float
    rival_psnr: float | None = None
    rival_steps: int | None = None


class Gallery:
    """Makes pictures once and judges them.

    Args:
        pipe: Untouched pipeline.
        classifier: Reads digits.
        real: What the model was trained on.
        count: Pictures for each seed.
        seeds: Of the noise.
    """

    def __init__(self, pipe: Any, classifier: Classifier, real: Digits, *, count: int, seeds: Sequence[int]) -> None:
        self.pipe = pipe
        self.classifier = classifier
        self.count = count
        self.seeds = tuple(seeds)
        self._real = classifier.features(real.images)
        self._dense: dict[str, list[Samples]] = {}

    def show(self, methods: Iterable[Method]) -> list[list[Samples]]:
        """Pictures of every method by seed. Methods take turns, so that none has the machine's better half hour."""
        chosen = list(methods)
        made: list[list[Samples]] = [[] for _ in chosen]
        with tqdm(total=len(chosen) * len(self.seeds), desc="pictures", unit="batch") as bar:
            for seed in self.seeds:
                for samples, method in zip(made, chosen, strict=True):
                    samples.append(sample(self.pipe, method, self.count, seed))
                    bar.update()
        for method, samples in zip(chosen, made, strict=True):
            if method.scheduler == "dense":
                self._dense[method.solver] = samples
        return made

    def judge(self, method: Method, samples: list[Samples], share: float) -> Row:
        """Compare a method's pictures with the uncached ones of its solver, which were shown before."""
        dense = self._dense[method.solver]
        images = torch.cat([its.images for its in samples])
        features = self.classifier.features(images)
        uncached = self.classifier.features(torch.cat([its.images for its in dense]))
        classes = torch.tensor(labels(self.count) * len(self.seeds))
        latency, dense_latency = _latency_ms(samples), _latency_ms(dense)
        others = [] if method.scheduler == "dense" else list(zip(samples, dense, strict=True))
        return Row(
            method.scheduler,
            method.estimator_name,
            method.solver,
            method.num_steps,
            share,
            round(method.cells, 4),
            round(latency, 2),
            round(dense_latency / latency, 3),
            tuple(round(psnr(its.images, other.images), 3) for its, other in others),
            round(frechet_distance(features, uncached), 4),
            round(frechet_distance(features, self._real), 4),
            round(self.classifier.accuracy(images, classes), 4),
        )


def rows_of(gallery: Gallery, preset: Any) -> list[Row]:
    """Every method of a preset: dense, all pairs, and fewer steps at the latencies of these."""
    products = [Product(gallery.pipe, solver, preset.num_steps, preset.num_calibration) for solver in preset.solvers]
    planned = [(product.dense, 1.0) for product in products] + [
        (method, share)
        for product in products
        for share in preset.shares
        for method in product.methods(share, list(preset.pairs))
    ]
    shown = gallery.show(method for method, _ in planned)
    rows = [gallery.judge(method, samples, share) for (method, share), samples in zip(planned, shown, strict=True)]
    wanted = sorted({(row.solver, steps_in(row)) for row in rows if row.scheduler != "dense"})
    rivals = [Method("fewer steps", solver, num_steps) for solver, num_steps in wanted]
    judged = [
        gallery.judge(method, samples, method.num_steps / preset.num_steps)
        for method, samples in zip(rivals, gallery.show(rivals), strict=True)
    ]
    by_steps = {(row.solver, row.num_steps): row for row in judged}
    return [_with_rival(row, by_steps) for row in rows] + judged


def steps_in(row: Row) -> int:
    """The fewest dense steps that take at least as long as a cached run."""
    return min(ceil(row.num_steps / row.speedup), row.num_steps)


def _with_rival(row: Row, rivals: dict[tuple[str, int], Row]) -> Row:
    if row.scheduler == "dense":
        return row
    rival = rivals[row.solver, steps_in(row)]
    return Row(**{**vars(row), "rival_psnr": round(mean(rival.psnr), 3), "rival_steps": rival.num_steps})


def _latency_ms(samples: list[Samples]) -> float:
    return 1000 * median(its.cpu_s for its in samples)
