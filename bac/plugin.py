"""Put a schedule on a policy, and take it off again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from torch import nn

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.block import Block
from bac.cache import DenoisingRun
from bac.errors import MismatchError, ScheduleError
from bac.estimators import Estimator, Hold, named
from bac.estimators.fitted import Fitted
from bac.fingerprint import Fingerprint
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
    executor: Literal["auto", "interpret", "replay"] = "auto",
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
    _check_options(schedule, executor, unseen)
    if compile and exact:
        raise ScheduleError("compile: a compiled plan rounds differently; allow that with exact=False")
    host = find_host(policy, blocks)
    chosen = _estimator_for(schedule, host, estimator)
    if isinstance(schedule, OnlineRule) or chosen.crosses_chunks or not isinstance(policy, nn.Module):
        executor = _interpreted(host, schedule, chosen, executor)
    if isinstance(schedule, Schedule):
        _check_blocks(schedule, host.blocks)
        _check_last(schedule, host)
        if strict:
            _check_fingerprint(schedule, host)
    fallback = None if guard is None else _fallback(guard, schedule, chosen, host, strict)

    take_off_all(policy)
    run = intercept(host, schedule, chosen, exact=exact, fallback=fallback)
    if executor != "interpret":
        sights = {"auto": 2, "replay": 1}[executor] if unseen == "record" else 0
        replayer = Replayer(
            host.weights or host.sampler_owner,
            host.blocks,
            run,
            sights=sights,
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


def _check_options(schedule: object, executor: str, unseen: str) -> None:
    if executor not in ("auto", "interpret", "replay"):
        raise ScheduleError(f'executor: must be "auto", "interpret" or "replay", got {executor!r}')
    if unseen not in ("record", "interpret"):
        raise ScheduleError(f'unseen: must be "record" or "interpret", got {unseen!r}')
    if schedule is None and executor == "interpret":
        raise ScheduleError('schedule: None computes every block, which only replay speeds up: executor="replay"')
    if schedule is not None and not isinstance(schedule, (Schedule, OnlineRule)):
        raise ScheduleError(
            f"schedule: must be a bac.Schedule, got {type(schedule).__name__}; for a file: bac.Schedule.load(path)"
        )


def _estimator_for(schedule: Schedule | OnlineRule | None, host: Host, given: Estimator | None) -> Estimator:
    if given is not None:
        return given
    return named(schedule.estimator, host.timesteps) if isinstance(schedule, Schedule) else Hold()


def _interpreted(
    host: Host, schedule: Schedule | OnlineRule | None, estimator: Estimator, executor: str
) -> Literal["interpret", "auto", "replay"]:
    if not isinstance(host.policy, nn.Module) and (executor == "replay" or schedule is None):
        raise ScheduleError(
            f"executor: a call of {type(host.policy).__name__} makes pictures of arguments that no tensor holds, so it "
            'cannot be replayed; give a schedule and take "interpret"'
        )
    if executor == "replay":
        what = type(schedule).__name__ if isinstance(schedule, OnlineRule) else estimator.name
        raise ScheduleError(
            f'executor: {what} makes a run depend on what it sees or saw, so it cannot be replayed; take "interpret"'
        )
    return "interpret"


def _fallback(
    guard: Guard, schedule: Schedule | OnlineRule | None, estimator: Estimator, host: Host, strict: bool
) -> Schedule | None:
    """Check a guard and what it falls back to."""
    if not isinstance(schedule, Schedule) or estimator.crosses_chunks:
        what = estimator.name if isinstance(schedule, Schedule) else type(schedule).__name__
        raise ScheduleError(
            f"guard: watches a fixed schedule whose runs begin anew with every chunk, which {what} is not; leave it out"
        )
    guard.check(schedule, estimator.name, host.fingerprint() if strict else None)
    if guard.changes_schedule and guard.cooldown is None and not callable(getattr(host.policy, "reset", None)):
        raise ScheduleError(
            f"guard: {type(host.policy).__name__} has no reset(), so say how long to respond: cooldown=20"
        )
    fallback = guard.fallback(schedule)
    if isinstance(guard.response, Schedule):
        _check_blocks(guard.response, host.blocks)
        _check_last(guard.response, host)
        if strict:
            _check_fingerprint(guard.response, host)
        if guard.response.num_steps != schedule.num_steps or isinstance(estimator, Fitted):
            raise ScheduleError(
                f"guard: a denser schedule needs as many steps, {schedule.num_steps}, and an estimator that fits both; "
                f'got {guard.response.num_steps} steps and {estimator.name}. Take response="dense"'
            )
    return fallback


def _put_on_duty(guard: Guard, host: Host, run: DenoisingRun) -> None:
    """On top of everything, so that what is probed or fallen back to is decided before a plan is looked for."""
    lookout = Lookout(guard)
    put_on(host.sampler_owner, host.sampler_attribute, Guarded(lookout, run, host.batch_dim))
    if callable(getattr(host.policy, "reset", None)):
        put_on(host.policy, "reset", EndOnReset(lookout))


def _check_blocks(schedule: Schedule, blocks: Sequence[Block]) -> None:
    names = [block.name for block in blocks if block.require_owner()]
    unknown = [name for name in schedule.block_names if name not in names]
    missing = [name for name in names if name not in schedule.block_names]
    if unknown or missing:
        raise ScheduleError(
            f"schedule: is for other blocks than the policy's {len(names)}: it has {len(unknown)} unknown "
            f"({', '.join(unknown[:3]) or 'none'}) and lacks {len(missing)} ({', '.join(missing[:3]) or 'none'}). "
            "Make one for this policy: bac.adaptive_schedule(bac.calibrate(policy, batches), num_updates=10)"
        )


def _check_last(schedule: Schedule, host: Host) -> None:
    stale = [name for name in host.update_last if schedule.update_steps[name][-1] != schedule.num_steps - 1]
    if stale:
        raise ScheduleError(
            f"{stale[0]}: must update at the last denoising step, where {type(host.policy).__name__} keeps what it "
            f"computes for the next action chunk; so must {len(stale) - 1} more. Make the schedule with "
            "bac.adaptive_schedule(..., force_last=1)"
        )


def _check_fingerprint(schedule: Schedule, host: Host) -> None:
    expected = schedule.fingerprint or Fingerprint(num_steps=schedule.num_steps)
    differences = expected.differences(host.fingerprint())
    if differences:
        raise MismatchError(
            f"{type(host.policy).__name__}: the schedule was made for something else.\n  "
            + "\n  ".join(differences)
            + "\nCalibrate and schedule again, or accept the differences: bac.wrap(policy, schedule, strict=False)"
        )
