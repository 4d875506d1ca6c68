"""The guard's place: it stands in for the sampler, on top of everything else, and tells the next run what to do."""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from typing import Any

import torch
from torch import Tensor

from bac.cache import DenoisingRun, Orders
from bac.errors import RunError
from bac.guarding.lookout import Alarm, Lookout, Report
from bac.guarding.probe import Probe
from bac.patch import Interceptor, stacked
from bac.plan.executor import Replayer

logger = logging.getLogger(__name__)

_MARGIN = 0.5  # of the calibrated range, on either side


class Guarded(Interceptor):
    """Stands in for a sampler: orders probes, takes their errors in, looks at the actions, and falls back.

    A switch happens here, at the entry of a denoising run; the run keeps the orders it began with.

    Args:
        lookout: The guard on duty.
        run: The sampler's.
        batch_dim: Dimension of a block's output that counts samples.
    """

    def __init__(self, lookout: Lookout, run: DenoisingRun, batch_dim: int) -> None:
        self.lookout = lookout
        self.run = run
        self.batch_dim = batch_dim
        self._has_warned = False
        self._range: tuple[Tensor, Tensor] | None = None
        self._lock = threading.Lock()

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if isinstance(self.original, Replayer) and self.original.on_demand:
            return self.original(*inputs, **options)
        if not self._lock.acquire(blocking=False):  # a second thread, or a call within a call; the run refuses it
            return self.original(*inputs, **options)
        try:
            return self._look_at(*inputs, **options)
        finally:
            self._lock.release()

    def __deepcopy__(self, memo: dict[int, Any]) -> Guarded:
        clone = Guarded.__new__(Guarded)
        memo[id(self)] = clone
        kept = {name: value for name, value in vars(self).items() if name != "_lock"}
        vars(clone).update(copy.deepcopy(kept, memo))
        clone._lock = threading.Lock()
        return clone

    def _look_at(self, *inputs: Any, **options: Any) -> Any:
        cells = self.lookout.begin()
        probe = Probe(cells, self.batch_dim) if cells else None
        self.run.orders_ahead = Orders(self.lookout.falls_back, probe)
        try:
            output = self.original(*inputs, **options)
        finally:
            self.run.orders_ahead = Orders(self.lookout.falls_back)
        if probe is not None and (errors := probe.errors()):
            self._tell(self.lookout.note(errors))
        if isinstance(output, Tensor) and (reason := self._oddity(output.detach())):
            self._tell(self.lookout.alarm(reason))
        return output

    def _oddity(self, actions: Tensor) -> str | None:
        """What is wrong with an action chunk, `[..., Da]`, by itself."""
        if not bool(torch.isfinite(actions).all()):
            return "the actions are not finite"
        calibrated = self.lookout.guard.action_range
        if calibrated is None or actions.shape[-1] != len(calibrated[0]):
            return None
        if self._range is None or self._range[0].device != actions.device:
            low, high = torch.tensor(calibrated, device=actions.device)
            self._range = low - _MARGIN * (high - low), high + _MARGIN * (high - low)
        outside = (actions < self._range[0]) | (actions > self._range[1])
        if not bool(outside.any()):
            return None
        which = outside.flatten(0, -2).any(dim=0).nonzero().flatten().tolist()
        return f"actions are far outside of the calibrated range, in dimension {', '.join(map(str, which))}"

    def _tell(self, alarm: Alarm | None) -> None:
        """Warn of the first alarm, log the others."""
        if alarm is None:
            return
        guard = self.lookout.guard
        then = "bac.guarding.report(policy) tells more"
        if guard.changes_schedule:
            until = "policy.reset()" if guard.cooldown is None else f"{guard.cooldown} chunks have been made"
            what = "every block is computed" if guard.response == "dense" else "the denser schedule is followed"
            then = f"from the next chunk on {what}, until {until}; {then}"
        message = f"drift guard, chunk {alarm.chunk}: {alarm.reason}; {then}"
        logger.warning(message) if self._has_warned else warnings.warn(message, RuntimeWarning, stacklevel=5)
        self._has_warned = True


class EndOnReset(Interceptor):
    """Ends a guard's response when the policy's episode ends."""

    def __init__(self, lookout: Lookout) -> None:
        self.lookout = lookout

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.lookout.reset()
        return self.original(*inputs, **options)


def report(policy: object) -> Report:
    """What the guard of a wrapped policy has seen so far.

    Raises:
        RunError: The policy has no guard.
    """
    return lookout_of(policy).report()


def lookout_of(policy: object) -> Lookout:
    """The guard of a wrapped policy, on duty.

    Raises:
        RunError: The policy has no guard.
    """
    for interceptor in stacked(policy):
        if isinstance(interceptor, Guarded):
            return interceptor.lookout
    raise RunError(f"{type(policy).__name__}: has no guard; put one on: bac.wrap(policy, schedule, guard=guard)")
