"""REPLAY: record a denoising run once, specialise it, replay it.

A schedule is static, so the whole denoising run is one straight program, known before it starts::

    record      one run under the interceptors, operator by operator     (tape)
    specialise  drop, share, fold, merge; on request re-associate         (passes)
    replay      as flat Python on a CPU, as one CUDA graph on a GPU       (codegen, cuda)

The interceptors stay the reference. A plan is trusted only after it has reproduced two of their runs. Where a plan
might not apply, the run is interpreted.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import nn

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.interceptors.patch import stacked
from bac.errors import RunError
from bac.plan.executor import Replayer
from bac.plan.plan import Plan
from bac.plan.replay import Replay

__all__ = ["Plan", "Replay", "plans", "record"]


def plans(policy: nn.Module) -> tuple[Plan, ...]:
    """Plans of a wrapped policy, the last used at the end. Each prints its passes and its cost."""
    return _replayer(policy).plans


def record(policy: Any, batch: Any, **options: Any) -> Plan:
    """Record the plan for one kind of batch now, so that no control loop has to wait for it.

    If a guard changes the schedule, its fallback gets a plan too.

    Args:
        policy: A policy wrapped with replay.
        batch: As `policy.predict_action_chunk` takes it. Shapes and dtypes matter; numbers only of words and masks
            that the policy reads in Python (`Plan.pinned`).
        options: Further arguments that later calls will have (a generator).

    Raises:
        RunError: The policy is not wrapped with replay, or its run cannot be replayed; the message gives the reason.
    """
    replayer = _replayer(policy)
    host = find_host(policy, replayer.blocks)  # anew: its `predict` must meet the interceptors
    if replayer.has_fallback:
        _record(replayer, host, copy(batch), options, fallback=True)
    return _record(replayer, host, copy(batch), options, fallback=False)


def _record(replayer: Replayer, host: Host, batch: Any, options: dict[str, Any], *, fallback: bool) -> Plan:
    with replayer.recording(fallback=fallback), host.own_randomness(), torch.no_grad():
        host.reset()
        host.predict(batch, **options)
        if replayer.answered is None and not replayer.refusals:  # the first call may differ from the next ones
            host.predict(batch, **options)
        host.reset()
    if replayer.answered is None:
        why = "; ".join((*replayer.refusals, *replayer.interruptions)) or "its sampler was not called"
        raise RunError(f"{type(host.policy).__name__}: its denoising run cannot be replayed: {why}")
    return replayer.answered


def _replayer(policy: nn.Module) -> Replayer:
    for interceptor in stacked(policy):
        if isinstance(interceptor, Replayer):
            return interceptor
    raise RunError(f"{type(policy).__name__}: not wrapped for replay; call bac.wrap(policy, what) without replay=False")
