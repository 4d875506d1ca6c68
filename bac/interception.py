"""Put interceptors on all of a policy's blocks and on its sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bac.adapters.host import Host
from bac.block import Site
from bac.cache import CachedBlock, DenoisingRun, Gate, NamedContexts, RunScope
from bac.errors import UnsupportedPolicyError
from bac.estimated import ContinuedRun, EstimatedBlock, ForgetOnReset
from bac.estimators import Estimator, Hold
from bac.hoist import Once
from bac.online.rule import OnlineBlock, OnlineRule, OnlineRun
from bac.patch import put_on
from bac.schedule import Schedule


def intercept(
    host: Host,
    schedule: Schedule | OnlineRule | None,
    estimator: Estimator,
    *,
    exact: bool,
    fallback: Schedule | None = None,
) -> DenoisingRun:
    """Stand in the way of a policy's blocks, of what it computes again and again, and of its sampler.

    Args:
        host: The policy, with nothing in its way.
        schedule: What is computed when; None computes everything.
        estimator: What stands in for the rest.
        exact: Leave out what changes the order of roundings.
        fallback: What is computed when in runs that are ordered to fall back (see `bac.guarding`).

    Returns:
        The run that all of them take part in.

    Raises:
        UnsupportedPolicyError: The estimator looks back an action chunk and the policy cannot be reset.
    """
    gate = None if host.evaluation is None else Gate(host.evaluation.applies)
    if schedule is None:
        run = DenoisingRun((), host.num_steps or 1, host.num_contexts)
    elif isinstance(schedule, OnlineRule):
        run = _intercept_online(host, schedule, estimator, gate)
    else:
        run = _intercept_blocks(host, schedule, fallback or schedule, estimator, gate)
    for site in host.constants:
        put_on(site.owner, site.attribute, Once(run, gate))
    for hoist in () if exact else host.hoists:
        put_on(hoist.site.owner, hoist.site.attribute, hoist.make(run))
    if host.evaluation is not None and gate is not None:
        put_on(host.evaluation.owner, host.evaluation.attribute, gate)
    if host.contexts is not None:
        put_on(host.contexts.owner, host.contexts.attribute, NamedContexts(run))
    put_on(host.sampler_owner, host.sampler_attribute, RunScope(run, host.denoiser))
    return run


def _intercept_blocks(
    host: Host, schedule: Schedule, fallback: Schedule, estimator: Estimator, gate: Gate | None
) -> DenoisingRun:
    """Stand in the way of every block, and of what feeds it, at the same steps; what feeds it is held."""
    by_name = {block.name: block for block in host.blocks}
    other = dict(zip(fallback.block_names, fallback.mask.T, strict=True))
    places: list[tuple[str, str | None, Site, Sequence[bool], Estimator]] = []
    for name, updates in zip(schedule.block_names, schedule.mask.T, strict=True):
        block = by_name[name]
        places.append((name, None, Site(block.require_owner(), block.attribute), updates, estimator))
        places += [(f"{name} ({feeder.attribute})", name, feeder, updates, Hold()) for feeder in block.feeders]
    run = _make_run([name for name, *_ in places], schedule.num_steps, host, estimator)
    for index, (name, feeds, site, updates, stand_in) in enumerate(places):
        options: dict[str, Any] = {"in_place": host.in_place, "gate": gate, "applies": site.applies}
        options |= {"fallback": other[feeds or name], "feeds": feeds}
        if isinstance(stand_in, Hold):
            put_on(site.owner, site.attribute, CachedBlock(run, index, updates, **options))
        else:
            put_on(site.owner, site.attribute, EstimatedBlock(run, index, updates, stand_in, **options))
    return run


def _intercept_online(host: Host, rule: OnlineRule, estimator: Estimator, gate: Gate | None) -> DenoisingRun:
    """Stand in the way of every block and ask the rule; what feeds a block is computed at every step."""
    run = OnlineRun(host.blocks, rule, host.num_contexts, always_last=bool(host.update_last))
    for index, block in enumerate(host.blocks):
        online = OnlineBlock(run, index, (), estimator, in_place=host.in_place, gate=gate)
        put_on(block.require_owner(), block.attribute, online)
    return run


def _make_run(names: Sequence[str], num_steps: int, host: Host, estimator: Estimator) -> DenoisingRun:
    if not estimator.crosses_chunks:
        return DenoisingRun(names, num_steps, host.num_contexts)
    if not callable(getattr(host.policy, "reset", None)):
        raise UnsupportedPolicyError(
            f"{type(host.policy).__name__}: has no reset(), so {estimator.name} would carry one episode into the next"
        )
    run = ContinuedRun(names, num_steps, host.num_contexts)
    put_on(host.policy, "reset", ForgetOnReset(run))
    return run
