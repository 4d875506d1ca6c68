"""Puts a way to denoise on a policy: the one place that decides which interceptor goes where.

Up to five interceptors are stacked on the sampler, called from the top::

    precision sets it for the call                                                (bac.precision)
    guard     decides whether to probe this chunk, or to follow the fallback      (bac.guarding)
    replay    answers from a plan if one fits                                     (bac.plan)
    run       begins and ends the denoising run                                   (bac.caching)
    solver    sets noise scheduler and number of steps for the call               (bac.solvers)
    sampler   the policy's own method

More interceptors shadow every block, every call whose result does not change within a run, and the calls through which
a flow-matching loop hands over sample, time and velocity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bac.adapters.host import Host
from bac.caching.block import Site
from bac.caching.estimators import Estimator, Hold
from bac.caching.interceptors.cached import CachedBlock
from bac.caching.interceptors.estimated import EstimatedBlock
from bac.caching.interceptors.once import Once
from bac.caching.interceptors.online import OnlineBlock, OnlineRule, OnlineRun
from bac.caching.interceptors.patch import Interceptor, put_on
from bac.caching.interceptors.run import ContinuedRun, DenoisingRun
from bac.caching.interceptors.scope import ForgetOnReset, Gate, NamedContexts, RunScope
from bac.caching.schedule import Schedule
from bac.denoising import Denoising
from bac.plan.executor import Replayer
from bac.plan.replay import Replay
from bac.precision import AS_LOADED, InPrecision
from bac.solvers.flow_interceptor import FlowInterceptor, places, solver_interceptor


@dataclass(frozen=True)
class OnTop:
    """The interceptors and the fallback that a guard adds to a policy.

    Attributes:
        on_sampler: Makes the topmost interceptor on the sampler, given the run.
        on_reset: Interceptor for the policy's `reset`, if it has one.
        fallback: Schedule of the runs that the guard orders to fall back; None if it never does.
    """

    on_sampler: Callable[[DenoisingRun], Interceptor]
    on_reset: Interceptor
    fallback: Schedule | None


def install(
    host: Host, denoising: Denoising, *, replay: Replay | None, warn: bool = False, on_top: OnTop | None = None
) -> DenoisingRun:
    """Put a way to denoise on a policy.

    Args:
        host: The untouched policy. `bac.checks` has checked `denoising` against it.
        denoising: The way to denoise.
        replay: Options of replay; None interprets every run.
        warn: Warn when a run cannot be replayed; otherwise log it.
        on_top: The guard's interceptors.

    Returns:
        The run that all interceptors share.
    """
    fallback = None if on_top is None else on_top.fallback
    solver = solver_interceptor(host, denoising.solver, denoising.timesteps, denoising.num_steps)
    run = _on_blocks(host, denoising, exact=replay is None or replay.exact, fallback=fallback)
    owner, attribute = host.sampler_owner, host.sampler_attribute
    # Bottom up: the interceptor put on last is called first.
    if solver is not None:
        put_on(owner, attribute, solver)
    if isinstance(solver, FlowInterceptor):
        for site, place in places(host, solver.run):
            put_on(site.owner, site.attribute, place)
    put_on(owner, attribute, RunScope(run, host.denoiser, denoising))
    if replay is not None:
        attributes = () if solver is None else solver.swaps
        held = [swap.value for swap in attributes if not isinstance(swap.value, int)]
        held += [] if host.weights is None else [owner]
        swapped = [(swap.owner, swap.attribute) for swap in attributes]
        put_on(
            owner,
            attribute,
            Replayer(
                host.weights or owner, host.blocks, run,
                replay=replay, warn=warn, held=held, swapped=swapped, has_fallback=fallback is not None,
            ),
        )  # fmt: skip
    if on_top is not None:
        put_on(owner, attribute, on_top.on_sampler(run))
        if host.can_reset:
            put_on(host.policy, "reset", on_top.on_reset)
    if denoising.precision != AS_LOADED:
        device = next(host.denoiser.parameters()).device.type
        put_on(owner, attribute, InPrecision(denoising.precision, device))
    return run


def _on_blocks(host: Host, denoising: Denoising, *, exact: bool, fallback: Schedule | None) -> DenoisingRun:
    """Put interceptors on all blocks, on the constant calls, and on the calls that mark evaluations and contexts."""
    schedule, estimator = denoising.schedule, denoising.estimator_on(host.timesteps)
    after = host.flow.num_extra if host.flow is not None and denoising.solver is not None else 0
    gate = None if host.evaluation is None else Gate(host.evaluation.applies)
    if (
        schedule is None and denoising.num_steps is not None and host.blocks
    ):  # the blocks count, lest other steps are made in silence
        every = tuple(range(denoising.num_steps))
        schedule = Schedule(denoising.num_steps, dict.fromkeys((block.name for block in host.blocks), every))
    if schedule is None:
        run = DenoisingRun((), host.num_steps or 1, host.num_contexts)
    elif isinstance(schedule, OnlineRule):
        run = _on_asking_blocks(host, schedule, estimator, gate)
    else:
        both = (_updating_after(schedule, after), _updating_after(fallback or schedule, after))
        run = _on_scheduled_blocks(host, *both, estimator, gate)
    for site in host.constants:
        put_on(site.owner, site.attribute, Once(run, gate))
    for hoist in () if exact else host.hoists:
        put_on(hoist.site.owner, hoist.site.attribute, hoist.make(run))
    if host.evaluation is not None and gate is not None:
        put_on(host.evaluation.owner, host.evaluation.attribute, gate)
    if host.contexts is not None:
        put_on(host.contexts.owner, host.contexts.attribute, NamedContexts(run))
    return run


def _updating_after(schedule: Schedule, count: int) -> Schedule:
    """The same schedule with updates in evaluations after the solver's last step, which are no steps of its own."""
    first = schedule.num_steps
    extra = tuple(range(first, first + count))
    updates = {name: (*steps, *extra) for name, steps in schedule.update_steps.items()}
    return Schedule(first + count, updates, schedule.fingerprint, schedule.estimator) if count else schedule


def _on_scheduled_blocks(
    host: Host, schedule: Schedule, fallback: Schedule, estimator: Estimator, gate: Gate | None
) -> DenoisingRun:
    """Put interceptors on every block and on its feeders, which share its update steps and are always held."""
    by_name = {block.name: block for block in host.blocks}
    other = dict(zip(fallback.block_names, fallback.mask.T, strict=True))
    places: list[tuple[str, str | None, Site, Sequence[bool], Estimator]] = []
    for name, updates in zip(schedule.block_names, schedule.mask.T, strict=True):
        block = by_name[name]
        places.append((name, None, Site(block.require_owner(), block.attribute), updates, estimator))
        places += [(f"{name} ({feeder.attribute})", name, feeder, updates, Hold()) for feeder in block.feeders]
    run = _make_run([name for name, *_ in places], schedule.num_steps, host, estimator)
    for index, (name, feeds, site, updates, its) in enumerate(places):
        options: dict[str, Any] = {"in_place": host.in_place, "gate": gate, "applies": site.applies}
        options |= {"fallback": other[feeds or name], "feeds": feeds}
        if its.is_plain:
            put_on(site.owner, site.attribute, CachedBlock(run, index, updates, **options))
        else:
            put_on(site.owner, site.attribute, EstimatedBlock(run, index, updates, its, **options))
    return run


def _on_asking_blocks(host: Host, rule: OnlineRule, estimator: Estimator, gate: Gate | None) -> DenoisingRun:
    """Put an interceptor that asks the rule on every block. Feeders are computed at every step."""
    run = OnlineRun(host.blocks, rule, host.num_contexts, always_last=bool(host.update_last))
    for index, block in enumerate(host.blocks):
        online = OnlineBlock(run, index, (), estimator, in_place=host.in_place, gate=gate)
        put_on(block.require_owner(), block.attribute, online)
    return run


def _make_run(names: Sequence[str], num_steps: int, host: Host, estimator: Estimator) -> DenoisingRun:
    if not estimator.crosses_chunks:
        return DenoisingRun(names, num_steps, host.num_contexts)
    run = ContinuedRun(names, num_steps, host.num_contexts)
    put_on(host.policy, "reset", ForgetOnReset(run))
    return run
