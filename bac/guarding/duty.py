"""Puts a guard on duty: checks it against the way to denoise, and makes its interceptors."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace

from bac.adapters.host import Host
from bac.caching.schedule import Schedule
from bac.checks import check_schedule
from bac.denoising import Denoising
from bac.errors import ScheduleError
from bac.fingerprint import Fingerprint
from bac.guarding.guard import Guard
from bac.guarding.interceptor import EndOnReset, GuardInterceptor
from bac.guarding.monitor import Monitor
from bac.install import OnTop

logger = logging.getLogger(__name__)


def on_duty(guard: Guard, denoising: Denoising, host: Host, *, strict: bool) -> OnTop:
    """Make the interceptors and the fallback that a guard adds to a policy.

    Raises:
        ScheduleError: The guard cannot watch such a schedule, or its fallback does not fit.
        MismatchError: The guard was calibrated for another schedule, estimator or policy.
    """
    schedule = watched_schedule(denoising, host)
    found = fingerprint_under(denoising, host) if strict else None
    guard.check(schedule, denoising.estimator_name, found)
    if found is not None and guard.fingerprint.other_weights(found):
        logger.warning("guard: was calibrated on other weights than %s has; calibrate anew", type(host.policy).__name__)
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
    """The schedule of a way to denoise, checked to be fit for a guard.

    Raises:
        ScheduleError: Nothing is reused, an online rule decides, or the estimator crosses action chunks.
    """
    if denoising.schedule is None:
        raise ScheduleError(f"guard: {denoising.name} reuses nothing, so there is nothing to watch; leave it out")
    crosses = denoising.estimator_on(host.timesteps).crosses_chunks
    if not isinstance(denoising.schedule, Schedule) or crosses:
        what = denoising.estimator_name if crosses else type(denoising.schedule).__name__
        raise ScheduleError(
            f"guard: needs a fixed schedule that keeps nothing from chunk to chunk, but {what} is not one; leave it out"
        )
    return denoising.schedule


def fingerprint_under(denoising: Denoising, host: Host) -> Fingerprint:
    """The fingerprint of a policy while it follows a way to denoise: limits hold for one solver only."""
    own = host.fingerprint()
    if denoising.solver is None:
        return own
    made = json.dumps(denoising.to_document()["solver"]).encode()
    solver = f"{denoising.solver.name} {hashlib.sha256(made).hexdigest()[:8]}"
    timesteps = tuple(map(float, denoising.timesteps))
    return replace(own, num_steps=denoising.num_steps, solver=solver, timesteps=timesteps)


def _check_response(response: Schedule, schedule: Schedule, denoising: Denoising, host: Host) -> None:
    check_schedule(response, host)
    estimator = denoising.estimator_on(host.timesteps)
    if response.num_steps != schedule.num_steps or estimator.is_fitted:
        raise ScheduleError(
            f"guard: a denser schedule needs as many steps, {schedule.num_steps}, and an estimator that fits both; "
            f'got {response.num_steps} steps and {estimator.name}. Take response="dense"'
        )
