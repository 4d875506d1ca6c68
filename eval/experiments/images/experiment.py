"""Measure every method on the same noise, for several seeds, against the uncached model and real digits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

import bac
from bac.solvers import Multistep
from bac.tuning.timing import interleaved
from eval.experiments.images.data import Digits
from eval.experiments.images.features import Classifier, frechet_distance, psnr
from eval.experiments.images.loop import DenoisingLoop
from eval.experiments.images.methods import DENSE, FEWER, ImageMethods
from eval.experiments.images.sampling import batch_of, labels, pictures, ready
from eval.experiments.methods.catalogue import sweeps_of
from eval.setup.cells import Cell

REPEATS = 2  # timed denoising runs per method and seed
AIM_SHARE = 0.2
NONE = "none"


@dataclass(frozen=True)
class ImageRow:
    """One method, measured.

    Attributes:
        scheduler: The scheduler's name; with ``dense`` or ``fewer steps...`` every block updates at every step.
        estimator: The estimator's name; ``none`` if nothing is reused.
        solver: One of `eval.experiments.images.sampling.NOISE_SCHEDULERS`.
        num_steps: Denoising steps K; for a fitted solver, the dense steps that its few steps replace.
        share: Requested share of the block evaluations, in (0, 1]. For fewer steps, their share of K.
        cells: Real share of the block evaluations, in (0, 1].
        latency_ms: Median CPU time of a batch on one thread, replayed from a plan [ms].
        speedup: The solver's dense latency over this one, both replayed.
        fit_psnr: PSNR on the pictures that methods were made from [dB]; the best method is chosen by it.
        psnr: PSNR to the uncached pictures of the same solver, for every seed [dB]; empty for the dense method.
        frechet_dense: Frechet distance to the uncached pictures of all seeds, in the classifier's features.
        frechet_real: Frechet distance to the pictures that the model was trained on.
        accuracy: Share of the pictures that the classifier reads as their label, in [0, 1].
        places: Update steps if all blocks share them, or the placed timesteps.
        weights: Coefficients of a fitted solver, `[K, 5]`.
        rival_psnr: Mean PSNR of the rival: the same solver with the fewest steps that take at least as long [dB].
        rival_steps: Number of the rival's steps.
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

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "ImageRow":
        """Read a row of ``rows.json``."""
        tuples = {name: tuple(document[name]) for name in ("psnr", "places")}
        return cls(**{**document, **tuples, "weights": tuple(map(tuple, document["weights"]))})

    @property
    def is_cached(self) -> bool:
        """Whether the method is neither dense nor a rival with fewer steps."""
        return self.scheduler != DENSE and not self.scheduler.startswith(FEWER)


class Samples(NamedTuple):
    """Pictures of one seed.

    Attributes:
        images: Pictures, `[B, 1, 8, 8]`, in [-1, 1].
        cpu_s: CPU time of every timed denoising run on one thread [s].
    """

    images: Tensor
    cpu_s: tuple[float, ...]


class Shown(NamedTuple):
    """A method and its pictures.

    Attributes:
        row: Measurements of the method.
        samples: Pictures and times, one for each seed.
    """

    row: ImageRow
    samples: tuple[Samples, ...]


class Gallery:
    """Makes the pictures of methods and compares them.

    Args:
        loop: Unwrapped denoising loop.
        classifier: Classifier that reads digits.
        real: Pictures that the model was trained on.
        count: Number of pictures per seed.
        seeds: Seeds of the noise.
    """

    def __init__(
        self, loop: DenoisingLoop, classifier: Classifier, real: Digits, *, count: int, seeds: Sequence[int]
    ) -> None:
        self.loop = loop
        self.classifier = classifier
        self.count = count
        self.seeds = tuple(seeds)
        self._real = classifier.features(real.images)

    def make(self, methods: Iterable[Cell]) -> list[tuple[Samples, ...]]:
        """Make every method's pictures, seed by seed, timed in turns, so that all meet the same load of the machine."""
        batch = batch_of(self.count, self.seeds[0])
        loops = [ready(self.loop, cell, batch) for cell in tqdm(list(methods), desc="plans", unit="plan")]
        by_seed = [self._sampled(loops, seed) for seed in tqdm(self.seeds, desc="pictures", unit="seed")]
        return list(zip(*by_seed, strict=True))

    def _sampled(self, loops: Sequence[DenoisingLoop], seed: int) -> list[Samples]:
        """Make and time the pictures of one seed with every loop."""
        batch = batch_of(self.count, seed)
        images = [pictures(loop, batch) for loop in loops]
        calls = {place: partial(loop.predict_action_chunk, batch) for place, loop in enumerate(loops)}
        taken = interleaved(calls, REPEATS, warm_up=0)  # making the pictures was the warm-up
        return [Samples(made, tuple(sample.cpu_s for sample in taken[place])) for place, made in enumerate(images)]

    def judge(
        self,
        cell: Cell,
        samples: tuple[Samples, ...],
        dense: tuple[Samples, ...],
        *,
        share: float,
        fit_psnr: float | None,
    ) -> Shown:
        """Compare a method's pictures with its solver's uncached pictures."""
        images = torch.cat([its.images for its in samples])
        features = self.classifier.features(images)
        uncached = self.classifier.features(torch.cat([its.images for its in dense]))
        classes = torch.tensor(labels(self.count) * len(self.seeds))
        latency, dense_latency = _latency_ms(samples), _latency_ms(dense)
        others = [] if cell.family == DENSE else list(zip(samples, dense, strict=True))
        estimator, places, weights = _chosen(cell.denoising or bac.Denoising())
        row = ImageRow(
            scheduler=cell.family,
            estimator=estimator,
            solver=cell.solver,
            num_steps=cell.num_steps,
            share=share,
            cells=round(sweeps_of(cell) / cell.num_steps, 4),
            latency_ms=round(latency, 2),
            speedup=round(dense_latency / latency, 3),
            fit_psnr=None if fit_psnr is None else round(fit_psnr, 3),
            psnr=tuple(round(psnr(its.images, other.images), 3) for its, other in others),
            frechet_dense=round(frechet_distance(features, uncached), 4),
            frechet_real=round(frechet_distance(features, self._real), 4),
            accuracy=round(self.classifier.accuracy(images, classes), 4),
            places=places,
            weights=weights,
        )
        return Shown(row, samples)


def measure(gallery: Gallery, preset: Any) -> list[Shown]:
    """Measure every method of a preset, solver by solver."""
    return [shown for solver in preset.solvers for shown in _measure(gallery, preset, solver)]


def steps_in(row: ImageRow) -> int:
    """The fewest dense steps that take at least as long as a cached run."""
    return min(ceil(row.num_steps / row.speedup), row.num_steps)


def best_of(rows: Iterable[ImageRow], share: float) -> ImageRow:
    """The cached row of a share with the best `fit_psnr`; the pictures that it is judged on do not decide."""
    return max((row for row in rows if row.is_cached and row.share == share), key=lambda row: row.fit_psnr or 0.0)


def _measure(gallery: Gallery, preset: Any, solver: str) -> Iterator[Shown]:
    """Measure dense, all pairs, and fewer steps at their latencies; placed steps are rivals of the best at the aim."""
    methods = ImageMethods(gallery.loop, solver, preset.num_steps, preset.num_calibration, preset.evaluations)
    planned: list[tuple[Cell, float]] = [(methods.dense, 1.0)]
    for share, pairs in preset.pairs:
        planned += [(cell, share) for cell in methods.methods(share, pairs)]
    made = gallery.make(cell for cell, _ in planned)
    dense = made[0]

    def judged(cell: Cell, samples: tuple[Samples, ...], share: float) -> Shown:
        fit_psnr = None if cell.family == DENSE else methods.fit_psnr(cell)
        return gallery.judge(cell, samples, dense, share=share, fit_psnr=fit_psnr)

    cached = [judged(cell, samples, share) for (cell, share), samples in zip(planned, made, strict=True)]
    rivals = list(_rivals(methods, [shown.row for shown in cached[1:]]))
    others = [
        judged(cell, samples, cell.num_steps / preset.num_steps)
        for cell, samples in zip(rivals, gallery.make(rivals), strict=True)
    ]
    even = {shown.row.num_steps: shown.row for shown in others if shown.row.scheduler == FEWER}
    yield cached[0]
    for shown in cached[1:]:
        yield shown._replace(row=_with_rival(shown.row, even[steps_in(shown.row)]))
    yield from others


def _rivals(methods: ImageMethods, rows: Sequence[ImageRow]) -> Iterator[Cell]:
    best = best_of(rows, AIM_SHARE)
    by_search = {steps_in(best), round(best.cells * best.num_steps)}
    for num_steps in sorted({steps_in(row) for row in rows} | by_search):
        yield from methods.fewer(num_steps) if num_steps in by_search else [methods.even(num_steps)]


def _with_rival(row: ImageRow, rival: ImageRow) -> ImageRow:
    return replace(row, rival_psnr=round(mean(rival.psnr), 3), rival_steps=rival.num_steps)


def _chosen(denoising: bac.Denoising) -> tuple[str, tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """The row's estimator, places and weights: update steps if all blocks share them, else timesteps if placed."""
    if isinstance(denoising.solver, Multistep):
        return "multistep", denoising.timesteps, denoising.solver.coefficients
    if denoising.schedule is None:
        return NONE, denoising.timesteps, ()
    steps, *others = set(denoising.schedule.update_steps.values())
    return denoising.estimator_name, () if others else steps, ()


def _latency_ms(samples: Iterable[Samples]) -> float:
    return 1000 * median(seconds for its in samples for seconds in its.cpu_s)
