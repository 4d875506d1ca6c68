"""The measurement: every method on the same noise, for several seeds, against the uncached model and real digits."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from eval.experiments.images.data import Digits
from eval.experiments.images.features import Classifier, frechet_distance, psnr
from eval.experiments.images.loop import DenoisingLoop
from eval.experiments.images.methods import FEWER, Product
from eval.experiments.images.sampling import Method, Samples, batch_of, labels, ready, sample

REPEATS = 2  # timed denoising runs of each method and seed
AIM_SHARE = 0.2


@dataclass(frozen=True)
class Row:
    """One method, measured.

    Attributes:
        scheduler: When blocks update; ``dense`` or ``fewer steps...`` update all.
        estimator: What stands in for the others; ``none`` where all update.
        solver: One of `eval.experiments.images.sampling.SOLVERS`.
        num_steps: Denoising steps K.
        share: What was asked for: share of the block evaluations. For fewer steps, their share of K.
        cells: What is made, in (0, 1].
        latency_ms: Median CPU time of a batch on one thread, replayed from a plan [ms].
        speedup: The solver's dense latency over this one, both replayed.
        fit_psnr: PSNR on the pictures that methods were made from, by which the best is chosen [dB].
        psnr: To the uncached pictures of the same solver, for every seed [dB]; empty for these themselves.
        frechet_dense: To the uncached pictures of all seeds, in the classifier's features.
        frechet_real: To the pictures that the model was trained on.
        accuracy: Share of the pictures that are read as what they should show, in [0, 1].
        places: Update steps, where all blocks share them, or timesteps that were placed.
        weights: Of a fitted solver.
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
    fit_psnr: float | None
    psnr: tuple[float, ...]
    frechet_dense: float
    frechet_real: float
    accuracy: float
    places: tuple[int, ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()
    rival_psnr: float | None = None
    rival_steps: int | None = None

    @property
    def is_cached(self) -> bool:
        """Neither dense nor a rival of fewer steps."""
        return self.scheduler != "dense" and not self.scheduler.startswith(FEWER)


class Shown(NamedTuple):
    """A method and what it made.

    Attributes:
        row: What is said of it.
        samples: By seed.
    """

    row: Row
    samples: tuple[Samples, ...]


class Gallery:
    """Makes pictures once and judges them.

    Args:
        loop: Untouched.
        classifier: Reads digits.
        real: What the model was trained on.
        count: Pictures for each seed.
        seeds: Of the noise.
    """

    def __init__(
        self, loop: DenoisingLoop, classifier: Classifier, real: Digits, *, count: int, seeds: Sequence[int]
    ) -> None:
        self.loop = loop
        self.classifier = classifier
        self.count = count
        self.seeds = tuple(seeds)
        self._real = classifier.features(real.images)

    def make(self, methods: Iterable[Method]) -> list[tuple[Samples, ...]]:
        """Pictures of every method by seed. Methods take turns, so that none has the machine's better half hour."""
        batch = batch_of(self.count, self.seeds[0])
        loops = [ready(self.loop, method, batch) for method in tqdm(list(methods), desc="plans", unit="plan")]
        made: list[list[Samples]] = [[] for _ in loops]
        with tqdm(total=len(loops) * len(self.seeds), desc="pictures", unit="batch") as bar:
            for seed in self.seeds:
                for samples, loop in zip(made, loops, strict=True):
                    samples.append(sample(loop, self.count, seed, REPEATS))
                    bar.update()
        return list(map(tuple, made))

    def judge(
        self,
        method: Method,
        samples: tuple[Samples, ...],
        dense: tuple[Samples, ...],
        *,
        share: float,
        fit_psnr: float | None,
    ) -> Shown:
        """Compare a method's pictures with the uncached ones of its solver."""
        images = torch.cat([its.images for its in samples])
        features = self.classifier.features(images)
        uncached = self.classifier.features(torch.cat([its.images for its in dense]))
        classes = torch.tensor(labels(self.count) * len(self.seeds))
        latency, dense_latency = _latency_ms(samples), _latency_ms(dense)
        others = [] if method.scheduler == "dense" else list(zip(samples, dense, strict=True))
        row = Row(
            method.scheduler,
            method.estimator_name,
            method.solver,
            method.stands_for or method.num_steps,
            share,
            round(method.cells, 4),
            round(latency, 2),
            round(dense_latency / latency, 3),
            fit_psnr if fit_psnr is None else round(fit_psnr, 3),
            tuple(round(psnr(its.images, other.images), 3) for its, other in others),
            round(frechet_distance(features, uncached), 4),
            round(frechet_distance(features, self._real), 4),
            round(self.classifier.accuracy(images, classes), 4),
            method.places,
            method.weights,
        )
        return Shown(row, samples)


def measure(gallery: Gallery, preset: Any) -> list[Shown]:
    """Every method of a preset, solver by solver."""
    return [shown for solver in preset.solvers for shown in _measure(gallery, preset, solver)]


def steps_in(row: Row) -> int:
    """The fewest dense steps that take at least as long as a cached run."""
    return min(ceil(row.num_steps / row.speedup), row.num_steps)


def best_of(rows: Iterable[Row], share: float) -> Row:
    """The cached row of a share that was best where methods are made; those it is judged on have no say."""
    return max((row for row in rows if row.is_cached and row.share == share), key=lambda row: row.fit_psnr or 0.0)


def _measure(gallery: Gallery, preset: Any, solver: str) -> Iterator[Shown]:
    """Dense, all pairs, and fewer steps at the latencies of these; placed ones as rivals of the best at the aim."""
    product = Product(gallery.loop, solver, preset.num_steps, preset.num_calibration, preset.evaluations)
    planned: list[tuple[Method, float]] = [(product.dense, 1.0)]
    for share, pairs in preset.pairs:
        planned += [(method, share) for method in product.methods(share, pairs)]
    made = gallery.make(method for method, _ in planned)
    dense = made[0]

    def judged(method: Method, samples: tuple[Samples, ...], share: float) -> Shown:
        fit_psnr = None if method is product.dense else product.fit_psnr(method)
        return gallery.judge(method, samples, dense, share=share, fit_psnr=fit_psnr)

    cached = [judged(method, samples, share) for (method, share), samples in zip(planned, made, strict=True)]
    rivals = list(_rivals(product, [shown.row for shown in cached[1:]]))
    others = [
        judged(method, samples, method.num_steps / preset.num_steps)
        for method, samples in zip(rivals, gallery.make(rivals), strict=True)
    ]
    even = {shown.row.num_steps: shown.row for shown in others if shown.row.scheduler == FEWER}
    yield cached[0]
    for shown in cached[1:]:
        yield shown._replace(row=_with_rival(shown.row, even[steps_in(shown.row)]))
    yield from others


def _rivals(product: Product, rows: Sequence[Row]) -> Iterator[Method]:
    best = best_of(rows, AIM_SHARE)
    by_search = {steps_in(best), round(best.cells * best.num_steps)}
    for num_steps in sorted({steps_in(row) for row in rows} | by_search):
        methods = list(product.fewer(num_steps)) if num_steps in by_search else [product.even(num_steps)]
        yield from methods


def _with_rival(row: Row, rival: Row) -> Row:
    return replace(row, rival_psnr=round(mean(rival.psnr), 3), rival_steps=rival.num_steps)


def _latency_ms(samples: Iterable[Samples]) -> float:
    return 1000 * median(seconds for its in samples for seconds in its.cpu_s)
