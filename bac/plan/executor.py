"""The interceptor of a policy's sampler that replays plans.

It lies above the interceptors of run and blocks, which are the reference. For every denoising run it decides whether a
plan may replace it. In doubt it interprets.
"""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from bac.caching.block import Block
from bac.caching.interceptors.patch import Interceptor
from bac.caching.interceptors.run import DenoisingRun, Orders
from bac.plan.build import build
from bac.plan.forking import in_every_child
from bac.plan.keys import Key, Keys
from bac.plan.plan import Plan
from bac.plan.refusal import GRADIENTS, HOOKS, Postponed, Refusal
from bac.plan.replay import Replay
from bac.plan.returned import tensors_in, to_caller
from bac.plan.signature import flatten, signature
from bac.plan.staleness import Change, Spot
from bac.plan.surroundings import has_mode, hooks_of

logger = logging.getLogger(__name__)

CAPACITY = 8  # plans kept per policy
_REPLAYS_PER_RECORD = 50  # a recording takes as long as some 50 replays, so it pays only if used that often
_IDLE_CHANGES = 3  # of an attribute that no code of a run names, before it is ignored
_DIFFERENT = 32  # signatures met once each, before this is told
_REMEMBERED = 1000  # signatures counted before the counts are cleared; signatures known to be refused


class Replayer(Interceptor):
    """Replays a denoising run if it has a plan, records one if it may, and interprets otherwise.

    Args:
        owner: Module whose weights a run reads, mostly that whose method is the sampler.
        blocks: The policy's blocks. A run is interpreted while anything other than `bac` intercepts one of them.
        run: The sampler's run. A probed run is interpreted; a run that falls back has plans of its own.
        replay: Options of replay.
        warn: Warn when a run cannot be replayed; otherwise log it.
        held: What else a run reads: the solver's noise scheduler; the sampler's own module, if it is not the owner.
        swapped: Attributes that a solver's interceptor replaces during a run: object and name.
        has_fallback: A guard may order runs to fall back.

    Attributes:
        on_demand: Whether a recording was asked for (`recording`).
    """

    role = "replay"
    answered: Plan | None

    def __init__(
        self,
        owner: nn.Module,
        blocks: Sequence[Block],
        run: DenoisingRun,
        *,
        replay: Replay,
        warn: bool,
        held: Sequence[object] = (),
        swapped: Sequence[tuple[object, str]] = (),
        has_fallback: bool = False,
    ) -> None:
        self.owner = owner
        self.blocks = tuple(blocks)
        self.run = run
        self.replay = replay
        self.sights = replay.sights
        self.warn = warn
        self.held = tuple(held)
        self.swapped = tuple(swapped)
        self.has_fallback = has_fallback
        self._blocks = [(block.require_owner(), block.attribute) for block in self.blocks]
        self._expected = self._on_blocks()
        self._forget()

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.answered = None
        if (reason := self._why_interpret()) is not None:
            return self._interpret(reason, args, options)
        leaves, structure = flatten((args, options))
        try:
            key = self._keys.of((self.run.orders_ahead.fallback, signature(leaves, structure)), leaves)
        except TypeError as error:
            self._tell(f"an argument of the sampler cannot be compared ({error}); give it as a tensor or a number")
            return self.original(*args, **options)
        plan = self._valid_plan(key)
        if plan is None and self._is_due(key):
            with self._lock:  # if two threads come at once, one records and the other waits
                plan = self._valid_plan(key)
                if plan is None and key not in self._refused:
                    return self._record(key, args, options)
        if plan is None:
            if key.numbers and any(other.kind == key.kind for other in list(self._plans)):
                self._tell("Python reads other numbers from its arguments than in the run that was recorded")
            elif not self.replay.sights and self._plans and all(other.kind != key.kind for other in list(self._plans)):
                self._tell("no plan was recorded ahead for arguments of these shapes and types: bac.plan.record")
            output = self.original(*args, **options)
            self._take_back(key)
            return output
        self._num_replays += 1
        self.answered = plan
        return to_caller(plan.output(leaves))

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Plans kept, the last used at the end."""
        return tuple(self._plans.values())

    @property
    def num_replays(self) -> int:
        """Runs made by a plan since the policy was wrapped."""
        return self._num_replays

    @property
    def refusals(self) -> tuple[str, ...]:
        """Reasons why runs could not be replayed."""
        return tuple(self._refused.values())

    @property
    def interruptions(self) -> tuple[str, ...]:
        """Reasons why single runs were interpreted, each told once."""
        return tuple(self._told)

    @contextmanager
    def recording(self, *, fallback: bool = False) -> Iterator[None]:
        """Within the context, record every run without a plan at its first call.

        Args:
            fallback: Record runs under the guard's fallback.
        """
        self._refused.clear()
        self._told.clear()
        sights, orders = self.sights, self.run.orders_ahead
        self.sights, self.run.orders_ahead = 1, Orders(fallback)
        self.on_demand = True
        try:
            yield
        finally:
            self.sights, self.run.orders_ahead, self.on_demand = sights, orders, False

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Within the context, interpret every run, record none, and tell nothing."""
        sights, plans, told, warn = self.sights, dict(self._plans), dict(self._told), self.warn
        self.sights, self.warn = 0, False
        self._plans.clear()
        try:
            yield
        finally:
            self.sights, self.warn = sights, warn
            self._plans.update(plans)
            self._told.clear()
            self._told.update(told)

    def __deepcopy__(self, memo: dict[int, Any]) -> Replayer:
        """A replayer of the copied policy, without plans: they have the original's weights baked in."""
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        clone._forget()
        kept = {name: value for name, value in vars(self).items() if name not in vars(clone)}
        vars(clone).update(copy.deepcopy(kept, memo))
        return clone

    def __str__(self) -> str:
        kind = "exact" if self.replay.exact else "re-associated"
        when = {2: "at the second sight of a shape", 1: "at first sight of a shape", 0: "ahead"}[self.replay.sights]
        return f"{kind}, recorded {when}: {len(self._plans)} plans, {self._num_replays} chunks replayed"

    def _forget(self) -> None:
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._keys = Keys()
        self._stale: dict[Key, Plan] = {}
        self._met: dict[Key, int] = {}
        self._refused: OrderedDict[Key, str] = OrderedDict()
        self._told: dict[str, None] = {}
        self._hooks: list[Any] | None = None
        self._ignored: set[Spot] = set()
        self._idle_changes: dict[Spot, int] = {}
        self._last_change = ""
        self._num_records = 0
        self._num_replays = 0
        self._detaches = False
        self.on_demand = False
        self.answered = None
        self._lock = threading.RLock()
        in_every_child(self, Replayer._renew_lock)

    def _keep(self, kind: Hashable, plan: Plan, leaves: Sequence[Any]) -> None:
        if self._keys.learn(kind, plan.pinned):  # those kept before may hold for other numbers, too
            self._plans = OrderedDict((key, other) for key, other in self._plans.items() if key.kind != kind)
        self._plans[self._keys.of(kind, leaves)] = plan
        while len(self._plans) > CAPACITY:
            self._plans.popitem(last=False)

    def _interpret(self, reason: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Interpret a run, and note whether the sampler turns gradients off by itself."""
        output = self.original(*args, **options)
        if reason is GRADIENTS and not any(tensor.requires_grad for tensor in tensors_in(output)):
            self._detaches = any(parameter.requires_grad for parameter in self.owner.parameters())
        if not (reason is GRADIENTS and self._detaches):
            self._tell(reason)
        return output

    def _why_interpret(self) -> str | None:
        """Why replay is out of the question for this run: gradients are wanted, say, or something watches it."""
        if self._hooks is None:
            self._hooks = hooks_of(self.owner)
        if torch.is_grad_enabled() and not self._detaches:
            return GRADIENTS
        if self.owner.training:
            return "the policy is in training mode; call policy.eval()"
        if self.run.orders_ahead.probe is not None:
            return "the guard probes this run"
        if self._on_blocks() != self._expected:
            return "something else intercepts its blocks; if it is to stay, call bac.wrap again after it"
        if any(self._hooks):
            return HOOKS
        if has_mode():
            return "a mode of PyTorch (TorchFunctionMode) is on; leave it to replay"
        if torch.compiler.is_compiling():
            return "torch.compile traces it; compile with replay=bac.Replay(exact=False, compile=True) instead"
        return None

    def _on_blocks(self) -> list[Any]:
        return [vars(owner).get(attribute) for owner, attribute in self._blocks]

    def _valid_plan(self, key: Key) -> Plan | None:
        plan = self._plans.get(key)
        if plan is None:
            return None
        if (change := plan.staleness.difference()) is not None:
            self._drop_plans(change)
            return None
        with suppress(KeyError):  # another thread dropped it meanwhile
            self._plans.move_to_end(key)
        return plan

    def _take_back(self, key: Key) -> Plan | None:
        """The plan that a change made stale, if the run has undone the change: it lowered a flag of its first call."""
        stale, self._stale = self._stale, {}
        if key not in stale:
            return None
        if stale[key].staleness.is_restored():
            self._plans.update({other: plan for other, plan in stale.items() if plan.staleness.is_restored()})
            return stale[key]
        if not self.sights:
            self._tell(f"{self._last_change} since it was recorded; record it again: bac.plan.record(policy, batch)")
        return None

    def _drop_plans(self, change: Change) -> None:
        """All plans have the old state baked in. A change without effect may happen a few times, then it is ignored."""
        logger.info("%s since the denoising run was recorded", change.reason)
        self._stale, self._plans = dict(self._plans), OrderedDict()
        self._refused.clear()
        self._hooks = None  # a replaced module has other hooks
        self._last_change = change.reason
        for spot, reason in change.idle.items():
            self._idle_changes[spot] = times = self._idle_changes.get(spot, 0) + 1
            if times == _IDLE_CHANGES:
                logger.info("%s again and again, and no code of the run names it, so it is ignored from now on", reason)
                self._ignored.add(spot)

    def _is_due(self, key: Key) -> bool:
        if self._is_refused(key) or not self.sights:
            return False
        if len(self._met) > _REMEMBERED:
            self._met.clear()
        self._met[key] = self._met.get(key, 0) + 1
        if len(self._met) == _DIFFERENT and self.sights > 1 and max(self._met.values()) == 1:
            self._tell("its arguments differ at every chunk, in a shape, a number or a text; give numbers as tensors")
        return self._met[key] >= self.sights

    def _record(self, key: Key, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self.on_demand and self._num_records >= 2 * CAPACITY + self._num_replays // _REPLAYS_PER_RECORD:
            why = f"; at last, {self._last_change}" if self._last_change else ""
            output = self.original(*args, **options)
            if self._take_back(key) is None:
                self._refuse(key, f"{self._num_records} recordings for {self._num_replays} replays do not pay{why}")
            return output
        self._hooks = hooks_of(self.owner)  # modules may have been replaced since they were listed
        if any(self._hooks):
            output = self._interpret(HOOKS, args, options)
            self._take_back(key)
            return output
        plan, output = build(
            self.original, self.owner, args, options,
            held=self.held, swapped=self.swapped, ignored=self._ignored, replay=self.replay,
            earlier=partial(self._take_back, key),
        )  # fmt: skip
        if self._plans.get(key) is plan:  # it holds again
            self.answered = self._plans[key]
            return to_caller(output)
        if isinstance(plan, Postponed):
            self._num_records += plan.was_tried
            self._tell(str(plan))
            return output
        self._num_records += 1
        if isinstance(plan, Refusal):
            self._refuse(key, str(plan))
            return to_caller(output)
        self.answered = plan
        self._keep(key.kind, plan, flatten((args, options))[0])
        logger.debug("%s", plan)
        return to_caller(output)

    def _refuse(self, key: Key, reason: str) -> None:
        """Interpret all runs of this key, and say why, once."""
        if reason not in self._refused.values():
            if self.warn:
                warnings.warn(f"{self._interpreted}: {reason}", RuntimeWarning, stacklevel=4)
            else:
                logger.info("%s: %s", self._interpreted, reason)
        self._refused[key] = reason
        while len(self._refused) > _REMEMBERED:
            self._refused.popitem(last=False)

    def _is_refused(self, key: Key) -> bool:
        """Whether runs of this key are interpreted; of too many such keys the least recently met is forgotten."""
        if key not in self._refused:
            return False
        with suppress(KeyError):  # another thread dropped it meanwhile
            self._refused.move_to_end(key)
        return True

    def _tell(self, reason: str) -> None:
        """Say why this run is interpreted, once; the next may be replayed."""
        if reason not in self._told:
            self._told[reason] = None
            logger.log(logging.WARNING if self.warn else logging.INFO, "%s: %s", self._interpreted, reason)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    @property
    def _interpreted(self) -> str:
        return f"{type(self.owner).__name__}: a denoising run cannot be replayed, so it is interpreted"
