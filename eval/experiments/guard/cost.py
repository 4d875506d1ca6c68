"""The cost of a guard: latency of a probed chunk beside a replayed one, and the overhead of every other chunk."""

import copy
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any

import torch

import bac
from bac.caching.interceptors.run import DenoisingRun
from bac.guarding.interceptor import GuardInterceptor
from bac.guarding.monitor import Monitor
from bac.tuning.timing import timed
from eval.experiments.guard.experiment import GuardExperiment
from eval.measure.latency import measure
from eval.setup.batches import one_of
from eval.setup.cells import configure

CALLS = 100  # guard calls in one timed sample, since one call takes microseconds


def cost_of(experiment: GuardExperiment, rounds: int) -> dict[str, Any]:
    """Latency of a replayed and of a probed chunk, interleaved, and a guard's overhead.

    The overhead on a chunk that is not probed is microseconds, less than the noise of the medians. So it is timed
    alone, on a sampler that does nothing.

    Args:
        experiment: Experiment with a calibrated guard.
        rounds: Samples of each kind of chunk.
    """
    guard, config = experiment.guard, experiment.loaded.policy.config
    every_chunk = replace(guard, probe_every=1)
    calls = {
        "replayed": _call(experiment, replay=bac.Replay(record="first")),
        "probed": _call(experiment, replay=False, guard=every_chunk),  # a probed chunk is never replayed
    }
    found = measure(calls, rounds=rounds, warmup=2, progress=False)
    replayed, probed = found["replayed"].p50_ms, found["probed"].p50_ms
    guard_us = overhead_us(guard, torch.zeros(1, config.horizon, config.action_feature.shape[0]))
    return {
        **{name: asdict(latency) for name, latency in found.items()},
        "guard_us": guard_us,
        "probe_every": guard.probe_every,
        "probed_over_replayed": probed / replayed,
        "mean_cost": (probed - replayed) / replayed / guard.probe_every + guard_us / (1e3 * replayed),
    }


def overhead_us(guard: bac.Guard, chunk: torch.Tensor, calls: int = 2000) -> float:
    """Overhead of a guard on a chunk that is not probed [us], median of CPU time."""
    guarded = GuardInterceptor(Monitor(replace(guard, probe_every=10**9)), DenoisingRun((), 1), 0)
    guarded.original = lambda: chunk

    def many() -> None:
        for _ in range(CALLS):
            guarded()

    return 1e6 / CALLS * median(sample.cpu_s for sample in timed(many, calls // CALLS))


def _call(experiment: GuardExperiment, **options: Any) -> partial[torch.Tensor]:
    """Make a call that computes one chunk with a wrapped copy of the policy."""
    policy = copy.deepcopy(experiment.loaded.policy)
    configure(policy, experiment.cell)
    bac.wrap(policy, experiment.denoising, **options)
    batch = one_of(experiment.calibration.batch)
    return partial(policy.predict_action_chunk, batch, generator=torch.Generator().manual_seed(0))
