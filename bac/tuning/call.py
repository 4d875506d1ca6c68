"""`bac.tune`: reads what is asked for, splits the observations, and starts the tuner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from bac.adapters import find_host
from bac.errors import CalibrationError
from bac.plan.replay import Replay
from bac.tuning.batches import Batch, split
from bac.tuning.bench import Bench
from bac.tuning.budget import Budget
from bac.tuning.coarser import check_precisions
from bac.tuning.flow import DEFAULT_STEPS
from bac.tuning.reference import ReferenceName
from bac.tuning.result import Tuned
from bac.tuning.tuner import Tuner

SWEEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50)


def tune(
    policy: Any,
    batches: Iterable[Batch],
    *,
    target_latency_s: float | None = None,
    target_hz: float | None = None,
    max_action_error: float | None = None,
    control_hz: float | None = None,
    n_action_steps: int | None = None,
    margin: float = 0.1,
    evaluations: int = 100,
    sweeps: Sequence[int] = SWEEPS,
    rounds: int = 9,
    replay: bool | Replay = True,
    reference: ReferenceName = "own",
    precisions: Sequence[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> Tuned:
    """Choose solver, timesteps, update steps and estimator together, for a budget, and verify the choice by running it.

    One half of the observations fits, the other half only judges. The reference is the policy as it is configured: its
    solver, its steps, its noise. If its solver draws noise during the run (DDPM), its actions given an observation are
    a distribution, and every way to denoise is judged by the energy distance to it (`bac.tuning.distance`). Otherwise
    (DDIM), it is judged by the action error on the same noise.

    The families of ways to denoise are fewer steps and reuse. With a noise scheduler of diffusers, fewer steps come
    from DPM-Solver++, first and second order, and from fitted multistep coefficients (`bac.solvers.fitting`); if the
    policy draws noise, also from DDPM, SDE-DPM-Solver++ and a fitted ancestral solver (`bac.solvers.regression`). One
    search places both their timesteps and the update steps. Among the ways that meet a latency, the nearest to the
    reference on the fitting observations wins; among distributions, in a second look at the nearest eight.

    For flow-matching policies, the families are fewer steps of the policy's own solver, at even and at searched times,
    a multistep solver with coefficients and times fitted (`bac.solvers.flow_fitting`), and reuse on the policy's own
    steps. All are judged by the policy's own steps, ten of Euler's mostly, or by a fine run of the same denoiser
    (`reference`); the report has the errors to both. Without a budget the choice is three fitted steps. One step alone
    is never chosen. Tuning takes a few minutes on one core, most of them in the search.

    Args:
        policy: An untouched policy, in eval mode, with the solver and the steps that it was judged with. Do not
            configure it for tuning: a deterministic path through a policy that draws noise can be another policy.
        batches: Observation batches as for `bac.calibrate`; at least three observations, two to fit and one to judge.
        target_latency_s: Largest latency of a chunk, at the 95th percentile [s].
        target_hz: The same as chunks per second (inference_hz) [Hz].
        max_action_error: Largest action error, instead of a latency; the fastest way to denoise below it is chosen. For
            a policy that draws noise, the largest energy distance. Normalised action units.
        control_hz: Control steps per second [Hz]; with `n_action_steps`, a chunk may take as long as it lasts.
        n_action_steps: Actions executed of a chunk.
        margin: Share of the latency to keep free, in [0, 1).
        evaluations: Runs that the search may make for each family; 0 leaves the search out.
        sweeps: Numbers of sweeps at which to try every family.
        rounds: Chunks to time of each finalist.
        replay: Replay as the policy will be run with, as for `bac.wrap`.
        reference: What a flow-matching policy is fitted to and judged by: ``own``, itself as it is configured, or
            ``flow``, a fine run of its flow; see `bac.tuning.reference`.
        precisions: With `max_action_error`, coarser precisions to try the choice in: ``tf32``, ``bf16``. The fastest
            that keeps the error wins; see `bac.precision`.
        seed: Seeds the noise.
        progress: Show a progress bar.

    Returns:
        The choice, with all trials.

    Raises:
        BudgetError: The budget is contradictory, or empty for a policy that is no flow, or nothing meets it; the
            message says what is reachable.
        CalibrationError: There are too few observations, or the policy is wrapped.
        ScheduleError: `reference` is ``flow``, and the policy follows none.
    """
    budget = budget_for(
        policy, target_latency_s=target_latency_s, target_hz=target_hz, max_action_error=max_action_error,
        control_hz=control_hz, n_action_steps=n_action_steps, margin=margin,
    )  # fmt: skip
    if isinstance(batches, Mapping):
        raise CalibrationError("batches: must be an iterable of observation batches, got one batch; pass [batch]")
    fit, held_out = split(list(batches))
    bench = Bench(policy, {"fit": fit, "held out": held_out}, replay=replay, reference=reference, seed=seed)
    check_precisions(precisions, bench, budget)
    with tqdm(desc="tune", unit="trial", disable=not progress) as bar:
        return Tuner(bench, budget, tuple(sweeps), rounds, evaluations, tuple(precisions), bar).run()


def budget_for(policy: Any, *, margin: float = 0.1, **asked: Any) -> Budget:
    """The budget that is asked for, as `tune` takes it; a flow-matching policy needs none.

    Raises:
        BudgetError: None is given to a policy that is no flow, or several, or a value is out of range.
    """
    if all(value is None for value in asked.values()) and find_host(policy).flow is not None:
        return Budget.of_steps(DEFAULT_STEPS)
    return Budget.of(**asked, margin=margin)
