"""Put a schedule on a policy, and take it off again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from bac.acceptance import Executor, check_fits, check_options, executor_for, fallback_of
from bac.adapters import find_host
from bac.adapters.host import Host
from bac.block import Block
from bac.cache import DenoisingRun
from bac.estimators import Estimator, Hold, named
from bac.guarding.guard import Guard
from bac.guarding.guarded import EndOnReset, Guarded
from bac.guarding.lookout import Lookout
from bac.interception import intercept
from bac.online.rule import OnlineRule
from bac.patch import put_on, take_off_all
from bac.plan.executor import Replayer
from bac.schedule import Schedule

Policy = TypeVar("Policy")


def wrap(
    policy: Policy,
    schedule: Schedule | OnlineRule | None,
    *,
    blocks: Sequence[Block] | None = None,
    estimator: Estimator | None = None,
    strict: bool = True,
    executor: Executor = "auto",
    unseen: Literal["record", "interpret"] = "record",
    exact: bool = True,
    compile: bool = False,
    guard: Guard | None = None,
) -> Policy:
    """Let a policy reuse its blocks' stored outputs, in place.

    From now on every call of the policy's sampler follows `schedule`: a block is computed at its update steps and its
    stored output is returned at all others. Where the schedule updates everywhere the result is bit-equal to the
    untouched policy's. Wrapping again replaces the schedule; if anything is refused the policy stays as it was.

    Args:
        policy: A policy with a transformer denoiser, in eval mode when it is run. Or a pipeline of diffusers: one call
            of it is one run, which is interpreted.
        schedule: From `bac.adaptive_schedule`, `bac.Schedule.load` or by hand. `None`, for replay, computes every
            block: the dense policy, faster and the same. A rule of `bac.online` decides while a run goes on.
        blocks: The blocks to cache, in order of evaluation, where `bac` does not find them itself.
        estimator: What stands in for a block where it is not computed (see `bac.estimators`); by default the one that
            the schedule names, which is plain reuse unless it was made for another.
        strict: Refuse a schedule made for another policy class, solver, timestep list or dtype.
        executor: "interpret" intercepts the blocks of the running policy. "replay" records a denoising run when it
            meets arguments of a new shape, which takes seconds, and replays it from then on (see `bac.plan`). "auto"
            does so when it meets them for the second time, and is quiet about runs that cannot be replayed.
        unseen: "interpret" lets a replay wait for no recording: only `bac.plan.record` makes plans.
        exact: Bit-equal to the untouched policy where every block updates, and replay bit-equal to the interceptors
            (on a CPU). False allows another order of roundings, which is faster: within 1e-5 of the largest action.
        compile: Let PyTorch's compiler fuse the plan, which takes minutes and a C++ compiler; with ``exact=False``.
        guard: Check now and then that the schedule still holds for what is seen, and respond (see `bac.guarding`);
            from `bac.Guard.calibrate`. What it falls back to is recorded as any other run is: beforehand by
            `bac.plan.record`, else when it is first needed.

    Returns:
        `policy` itself.

    Raises:
        UnsupportedPolicyError: The policy's blocks or sampler were not found.
        ScheduleError: The schedule's blocks are not the policy's, or its estimator has parameters to be fitted.
        MismatchError: The schedule's fingerprint differs from the policy's and `strict` is true; or the guard is for
            another schedule.
    """
    check_options(schedule, executor, unseen, exact=exact, compile=compile)
    host = find_host(policy, blocks)
    chosen = _estimator_for(schedule, host, estimator)
    executor = executor_for(host, schedule, chosen, executor)
    if isinstance(schedule, Schedule):
        check_fits(schedule, host, strict=strict)
    fallback = None if guard is None else fallback_of(guard, schedule, chosen, host, strict=strict)

    take_off_all(policy)
    run = intercept(host, schedule, chosen, exact=exact, fallback=fallback)
    if executor != "interpret":
        replayer = Replayer(
            host.weights or host.sampler_owner,
            host.blocks,
            run,
            sights={"auto": 2, "replay": 1}[executor] if unseen == "record" else 0,
            exact=exact,
            inductor=compile,
            warn=executor == "replay",
            has_fallback=fallback is not None,
        )
        put_on(host.sampler_owner, host.sampler_attribute, replayer)
    if guard is not None:
        _put_on_duty(guard, host, run)
    return policy


def unwrap(policy: Policy) -> Policy:
    """Take the schedule off; the policy's attributes are as they were before `bac.wrap`. Harmless if not wrapped.

    Returns:
        `policy` itself.
    """
    take_off_all(policy)
    return policy


def _estimator_for(schedule: Schedule | OnlineRule | None, host: Host, given: Estimator | None) -> Estimator:
    if given is not None:
        return given
    return named(schedule.estimator, host.timesteps) if isinstance(schedule, Schedule) else Hold()


def _put_on_duty(guard: Guard, host: Host, run: DenoisingRun) -> None:
    """On top of everything, so that what is probed or fallen back to is decided before a plan is looked for."""
    lookout = Lookout(guard)
    put_on(host.sampler_owner, host.sampler_attribute, Guarded(lookout, run, host.batch_dim))
    if callable(getattr(host.policy, "reset", None)):
        put_on(host.policy, "reset", EndOnReset(lookout))
