"""Does what is to be put on a policy fit it, and itself? Asked before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import nn

from bac.adapters.host import Host
from bac.block import Block
from bac.errors import MismatchError, ScheduleError
from bac.estimators import Estimator
from bac.estimators.fitted import Fitted
from bac.fingerprint import Fingerprint
from bac.guarding.guard import Guard
from bac.online.rule import OnlineRule
from bac.schedule import Schedule

Executor: TypeAlias = Literal["auto", "interpret", "replay"]


def check_options(schedule: object, executor: str, unseen: str, *, exact: bool, compile: bool) -> None:
    """Refuse options of `bac.wrap` that are unknown or contradict each other.

    Raises:
        ScheduleError: They do.
    """
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
    if compile and exact:
        raise ScheduleError("compile: a compiled plan rounds differently; allow that with exact=False")


def executor_for(
    host: Host, schedule: Schedule | OnlineRule | None, estimator: Estimator, executor: Executor
) -> Executor:
    """The executor, or the interceptor where a run depends on more than its arguments.

    Raises:
        ScheduleError: Such a run was to be replayed.
    """
    is_pipeline = not isinstance(host.policy, nn.Module)
    if not (isinstance(schedule, OnlineRule) or estimator.crosses_chunks or is_pipeline):
        return executor
    if is_pipeline and (executor == "replay" or schedule is None):
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


def check_fits(schedule: Schedule, host: Host, *, strict: bool) -> None:
    """Refuse a schedule for other blocks, or, if `strict`, for another policy.

    Raises:
        ScheduleError: Its blocks are not the policy's, or one does not update where it must.
        MismatchError: Its fingerprint is not the policy's.
    """
    _check_blocks(schedule, host.blocks)
    _check_last(schedule, host)
    if strict:
        _check_fingerprint(schedule, host)


def fallback_of(
    guard: Guard, schedule: Schedule | OnlineRule | None, estimator: Estimator, host: Host, *, strict: bool
) -> Schedule | None:
    """What a guard's alarms put on; None if that is nothing. The guard is checked first.

    Raises:
        ScheduleError: It can watch no such schedule, or what it puts on does not fit.
        MismatchError: It was calibrated for something else.
    """
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
    if isinstance(guard.response, Schedule):
        check_fits(guard.response, host, strict=strict)
        if guard.response.num_steps != schedule.num_steps or isinstance(estimator, Fitted):
            raise ScheduleError(
                f"guard: a denser schedule needs as many steps, {schedule.num_steps}, and an estimator that fits both; "
                f'got {guard.response.num_steps} steps and {estimator.name}. Take response="dense"'
            )
    return guard.fallback(schedule)


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
