"""Put a guard on duty: check it against what it is to watch, and say what it adds to a policy."""

from __future__ import annotations

from bac.adapters.host import Host
from bac.caching.schedule import Schedule
from bac.checks import check_schedule
from bac.denoising import Denoising
from bac.errors import ScheduleError
from bac.guarding.guard import Guard
from bac.guarding.interceptor import EndOnReset, GuardInterceptor
from bac.guarding.monitor import Monitor
from bac.install import OnTop


def on_duty(guard: Guard, denoising: Denoising, host: Host, *, strict: bool) -> OnTop:
    """What a guard adds to a policy that follows a way to denoise.

    Raises:
        ScheduleError: It can watch no such schedule, or what it falls back to does not fit.
        MismatchError: It was calibrated for something else.
    """
    schedule = watched_schedule(denoising, host)
    guard.check(schedule, denoising.estimator_name, host.fingerprint() if strict else None)
    if guard.changes_schedule and guard.cooldown is None and not host.can_reset:
        raise ScheduleError(
            f"guard: {type(host.policy).__name__} has no reset(), so say how long to respond: cooldown=20"
        )
    if isinstance(guard.response, Schedule):
        _check_response(guard.response, schedule, denoising, host)
    monitor = Monitor(guard)
    return OnTop(
        lambda run: GuardInterceptor(monitor, run, host.batch_dim), EndOnReset(monitor), guard.fallback(schedule)
    )


def watched_schedule(denoising: Denoising, host: Host) -> Schedule:
    """The schedule that a guard can watch.

    Raises:
        ScheduleError: Nothing is reused, a rule decides during the run, or a run continues the one before.
    """
    if denoising.schedule is None:
        raise ScheduleError(f"guard: {denoising.name} reuses nothing, so there is nothing to watch; leave it out")
    crosses = denoising.estimator_on(host.timesteps).crosses_chunks
    if not isinstance(denoising.schedule, Schedule) or crosses:
        what = denoising.estimator_name if crosses else type(denoising.schedule).__name__
        raise ScheduleError(
            f"guard: watches a fixed schedule whose runs begin anew with every chunk, which {what} is not; leave it out"
        )
    return denoising.schedule


def _check_response(response: Schedule, schedule: Schedule, denoising: Denoising, host: Host) -> None:
    check_schedule(response, host)
    estimator = denoising.estimator_on(host.timesteps)
    if response.num_steps != schedule.num_steps or estimator.is_fitted:
        raise ScheduleError(
            f"guard: a denser schedule needs as many steps, {schedule.num_steps}, and an estimator that fits both; "
            f'got {response.num_steps} steps and {estimator.name}. Take response="dense"'
        )
