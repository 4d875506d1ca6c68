"""Puts a way to denoise on a policy, and takes it off again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

from bac.adapters import find_host
from bac.adapters.flow import Flow
from bac.caching.block import Block
from bac.caching.interceptors.online import OnlineRule
from bac.caching.interceptors.patch import stack_on, take_off_all
from bac.caching.schedule import Schedule
from bac.checks import check_fits, replay_for
from bac.denoising import Denoising
from bac.description import Description, describe_host
from bac.errors import ScheduleError
from bac.guarding.duty import on_duty
from bac.guarding.guard import Guard
from bac.install import install
from bac.plan.replay import Replay
from bac.solvers.flow_interceptor import FlowInterceptor

logger = logging.getLogger(__name__)
Policy = TypeVar("Policy")


def wrap(
    policy: Policy,
    what: Denoising | Schedule | OnlineRule | None = None,
    *,
    replay: bool | Replay = True,
    guard: Guard | None = None,
    blocks: Sequence[Block] | None = None,
    flow: Flow | None = None,
    strict: bool = True,
) -> Policy:
    """Let a policy denoise another way, in place: fewer steps, reuse, replay, or all three.

    From now on every call of the policy's sampler follows `what`. Wrapping again replaces it. If anything is refused,
    the policy stays as it was. Between two calls the policy's attributes are its own: it can be saved and configured.

    Args:
        policy: A policy with a transformer denoiser or a known U-Net, in eval mode when it is run. Or a pipeline of
            diffusers: one call of it is one run, which is interpreted.
        what: From `bac.load`, `bac.tune(...).denoising`, `bac.adaptive_schedule`, or by hand. None replays the policy
            as it is: the same actions, faster. A rule of `bac.published` decides during the run.
        replay: True records a denoising run as a plan at the second call with arguments of one shape, and replays the
            plan from then on (see `bac.plan`). A run that cannot be replayed is interpreted, and one log line gives
            the reason. False interprets every run. A `bac.Replay` sets the options of replay, and makes a refusal a
            warning or an error.
        guard: Probes some chunks to check that the schedule still holds, and responds if it does not; from
            `bac.guarding.calibrate`. `bac.plan.record` records the plan of its fallback ahead; otherwise the first
            run that falls back records it.
        blocks: The blocks to cache, in order of evaluation, where `bac` does not find them itself.
        flow: Where sample, time and velocity pass in the policy's sampler, if it is a flow-matching one that `bac` does
            not know: a `bac.adapters.flow.Flow`. It then takes solvers, such as
            ``bac.Denoising(solver="Euler", timesteps=(0.8, 0.2, 0.05))``.
        strict: Refuse a `what` that was made for another policy class, solver, timestep list, noise levels, kind of
            prediction, clip or dtype, and coefficients that were fitted to other weights. For other weights, a schedule
            or a solver gets one warning.

    Returns:
        `policy` itself.

    Raises:
        UnsupportedPolicyError: The policy's blocks or sampler were not found.
        ScheduleError: `what` does not fit the policy, or contradicts another option.
        MismatchError: `what` was made for another policy or fitted to other weights, and `strict` is true; or the guard
            is for another schedule.
    """
    if what is None and replay is False:
        raise ScheduleError("what: None computes every block, which only replay speeds up; leave replay=False out")
    denoising = Denoising.of(what)
    host = find_host(policy, blocks, flow)
    check_fits(denoising, host, strict=strict)
    options = replay_for(host, denoising, replay)
    on_top = None if guard is None else on_duty(guard, denoising, host, strict=strict)
    if denoising.measured is not None and denoising.measured.warning is not None:
        logger.warning("%s on %s: %s", denoising.name, type(policy).__name__, denoising.measured.warning)

    # Everything above may refuse; only from here on the policy changes.
    take_off_all(policy)
    try:
        install(host, denoising, replay=options, warn=isinstance(replay, Replay), on_top=on_top)
    except BaseException:
        take_off_all(policy)  # nothing rather than half of it
        raise
    return policy


def describe(policy: object, *, blocks: Sequence[Block] | None = None, flow: Flow | None = None) -> Description:
    """Describe a policy: interceptors in order, updates per block, plans, and the cost of a chunk.

    For a policy that is not wrapped, the description lists the options instead.

    Args:
        policy: As for `wrap`.
        blocks: As for `wrap`.
        flow: As for `wrap`; a wrapped policy remembers it.

    Returns:
        A value that prints as a report.

    Raises:
        UnsupportedPolicyError: The policy's blocks or sampler were not found.
    """
    host = find_host(policy, blocks, flow)
    stack = tuple(stack_on(host.sampler_owner, host.sampler_attribute))
    known = next((found.flow for found in stack if isinstance(found, FlowInterceptor)), flow)
    return describe_host(find_host(policy, blocks, known), stack)


def unwrap(policy: Policy) -> Policy:
    """Undo `bac.wrap` without a trace, solver included. An untouched policy stays as it is.

    Returns:
        `policy` itself.
    """
    take_off_all(policy)
    return policy
