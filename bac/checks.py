"""Checks a way to denoise and the options of replay against a policy before `wrap` changes anything."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from bac.adapters.host import Host
from bac.caching.block import Block
from bac.caching.interceptors.online import OnlineRule
from bac.caching.schedule import Schedule
from bac.denoising import Denoising
from bac.errors import MismatchError, ScheduleError, UnsupportedPolicyError
from bac.fingerprint import Fingerprint
from bac.plan.replay import Replay
from bac.precision import check_precision_on
from bac.solvers import solver_interceptor

logger = logging.getLogger(__name__)


def check_fits(denoising: Denoising, host: Host, *, strict: bool) -> None:
    """Refuse a way to denoise that was made for other blocks, another sampler or, if `strict`, another policy.

    Raises:
        ScheduleError: Its blocks are not the policy's, a block does not update where it must, its estimator lacks
            fitted parameters, or the policy does not take its solver, number of steps or precision.
        MismatchError: Its fingerprint is not the policy's.
        UnsupportedPolicyError: A block cannot be reached; or the estimator crosses action chunks and the policy cannot
            be reset.
    """
    estimator = denoising.estimator_on(host.timesteps)
    for block in host.blocks:
        block.require_owner()
    if isinstance(denoising.schedule, Schedule):
        check_schedule(denoising.schedule, host)
    if estimator.crosses_chunks and not host.can_reset:
        raise UnsupportedPolicyError(
            f"{type(host.policy).__name__}: has no reset(), so {estimator.name} would carry one episode into the next"
        )
    check_precision_on(host.weights or host.denoiser, denoising.precision)
    _check_timesteps(denoising, host)
    solver_interceptor(host, denoising.solver, denoising.timesteps, denoising.num_steps)
    if strict:
        found = host.fingerprint()
        _check_fingerprint(denoising, host, found)
        _check_weights(denoising, host, found)


def check_schedule(schedule: Schedule, host: Host) -> None:
    """Check a schedule's blocks against the policy's.

    Raises:
        ScheduleError: The schedule has other blocks than the policy, or reuses a block where it must update.
    """
    _check_blocks(schedule, host.blocks)
    _check_last(schedule, host)


def replay_for(host: Host, denoising: Denoising, replay: bool | Replay) -> Replay | None:
    """The options of replay; None if runs are interpreted.

    A run can be replayed only if it depends on nothing but its arguments.

    Args:
        replay: As for `bac.wrap`: True replays where possible, a `bac.Replay` demands it.

    Raises:
        ScheduleError: Runs cannot be replayed, although `replay` demands it.
    """
    if not isinstance(replay, (bool, Replay)):
        raise ScheduleError(f"replay: must be True, False or a bac.Replay, got {replay!r}")
    if replay is False:
        return None
    options = replay if isinstance(replay, Replay) else Replay()
    reason = why_not_replayed(host, denoising)
    if reason is None:
        return options
    if isinstance(replay, Replay):
        raise ScheduleError(f"replay: {reason}, so it cannot be replayed. Give a schedule, and replay=False")
    level = logging.WARNING if denoising == Denoising() else logging.INFO  # then nothing at all becomes faster
    logger.log(level, "%s: every run is interpreted, because %s", type(host.policy).__name__, reason)
    return None


def why_not_replayed(host: Host, denoising: Denoising) -> str | None:
    """Why no fixed program holds a run, as a clause of a sentence; None if one may."""
    if not isinstance(host.policy, nn.Module):
        return f"a call of {type(host.policy).__name__} makes pictures from arguments that are not tensors"
    if isinstance(denoising.schedule, OnlineRule):
        return f"{type(denoising.schedule).__name__} makes a run depend on what it sees"
    if (estimator := denoising.estimator_on(host.timesteps)).crosses_chunks:
        return f"{estimator.name} makes a run depend on the run before"
    return None


def _check_blocks(schedule: Schedule, blocks: Sequence[Block]) -> None:
    names = [block.name for block in blocks]
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


def _check_timesteps(denoising: Denoising, host: Host) -> None:
    """A solver looks its timesteps up among the noise levels of the training."""
    if denoising.solver is None or not host.takes_solvers:
        return
    trained = len(host.noise_scheduler.alphas_cumprod)
    if denoising.timesteps[0] >= trained:
        raise ScheduleError(
            f"timesteps: must be below {trained}, the number of noise levels {type(host.policy).__name__} was trained "
            f"on, got {denoising.timesteps[0]}; tune for this policy: bac.tune(policy, batches)"
        )


def _check_weights(denoising: Denoising, host: Host, found: Fingerprint) -> None:
    """Other weights of the same policy: coefficients fitted to them no longer hold; steps and solvers do, perhaps."""
    if not denoising.made_for.other_weights(found):
        return
    name = type(host.policy).__name__
    what = f"{denoising.name} was made for other weights ({denoising.made_for.weights}) than it has ({found.weights})"
    if denoising.is_fitted:
        raise MismatchError(
            f"{name}: {what}, and its coefficients were fitted to them. Tune again, or accept the difference: "
            "bac.wrap(policy, what, strict=False)"
        )
    logger.warning("%s: %s; if the policy was trained on, compare them, or calibrate or tune again", name, what)


def _check_fingerprint(denoising: Denoising, host: Host, found: Fingerprint) -> None:
    """Compare fingerprints, leaving out the solver and the number of steps that `wrap` would replace."""
    expected = denoising.made_for
    if denoising.solver is not None:
        expected = replace(expected, num_steps=None, solver=None, timesteps=())
    elif denoising.num_steps not in (None, host.num_steps):
        expected = replace(expected, num_steps=None, timesteps=())
    elif isinstance(denoising.schedule, Schedule):
        # The schedule's K counts: a schedule made together with a solver carries the K that the policy had before.
        expected = replace(expected, num_steps=denoising.schedule.num_steps)
    differences = expected.differences(found)
    if differences:
        raise MismatchError(
            f"{type(host.policy).__name__}: {denoising.name} was made for something else.\n  "
            + "\n  ".join(differences)
            + "\nCalibrate or tune again, or accept the differences: bac.wrap(policy, what, strict=False)"
        )
