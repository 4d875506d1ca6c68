"""Prepares a policy for replay in the call that asks for its first action chunk.

LeRobot's commands ask for it before the robot moves: there is nothing to execute yet. In that call the policy is on its
device, its weights are final, and the observation is a real one. The preparation

1. records the denoising run (`bac.plan`), which checks the plan on this observation and on other numbers,
2. runs the untouched policy and the wrapped one by turns on this observation, and compares actions and latency,
3. puts the generators back, and what the policy remembers, so that the first chunk is the one that the policy would
   have made anyway.

Where replay is refused, changes an action or brings no gain, the policy is left as it is, and one line says why.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from bac.adapters.host import dotted_name
from bac.adapters.lerobot.names import POLICIES, RTC_OPTIONS
from bac.caching.interceptors.patch import Interceptor, interceptors, lifted, put_above, stack_on, take_off_all
from bac.caching.interceptors.scope import outside_compilers
from bac.lerobot import clock
from bac.lerobot.guidance import Guidance, PrefixWeights
from bac.lerobot.overlap import Overlap
from bac.lerobot.trial import Trial, latency
from bac.plan.executor import Replayer
from bac.plan.plan import Plan
from bac.plan.randomness import RandomState
from bac.plan.signature import flatten, fresh
from bac.plan.staleness import state_of

logger = logging.getLogger(__name__)

_CHUNKS = 20  # as many as a preparation takes, roughly; twice as many under RTC
_IS_RTC = RTC_OPTIONS[0]
LEAVE = "(BAC=off to leave it alone)"


class NotPrepared(Exception):  # noqa: N818
    """The policy is not replayed. The message is the reason, as a clause. Never leaves this module."""


class Preparation(Interceptor):
    """Stands directly above the replayer. Prepares the policy at its first chunk, and lets calls pass one at a time.

    Args:
        policy: The wrapped policy.
        owner: Module whose method is the sampler.
        attribute: Name of that method.
        follows: What the policy follows, in words; it is then not the reference for its actions, and stays wrapped in
            any case. Empty if it is replayed as it is.
    """

    role = "prepare"

    def __init__(self, policy: nn.Module, owner: nn.Module, attribute: str, *, follows: str) -> None:
        self.policy = policy
        self.owner = owner
        self.attribute = attribute
        self.follows = follows
        self.state = "waits for the first chunk"
        self.guidance = self._guidance()
        self._is_due = True
        self._is_final = False  # a robot moves, and must not wait for another recording
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **options: Any) -> Any:
        return outside_compilers(self._call)(*args, **options)

    def _call(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            if torch.is_grad_enabled() or self.owner.training:
                return self.original(*args, **options) if self.follows else self._untouched(args, options)
            if self._is_due:
                return self._prepare(args, options)
            output = self.original(*args, **self.guidance.fit(options))
            if self._is_final and self._replayer.answered is None:
                self._tell_once()
            return output

    def __deepcopy__(self, memo: dict[int, Any]) -> Preparation:
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        kept = {name: value for name, value in vars(self).items() if name != "_lock"}
        vars(clone).update(copy.deepcopy(kept, memo), _lock=threading.RLock())
        return clone

    def __str__(self) -> str:
        return self.state

    @property
    def _name(self) -> str:
        return type(self.policy).__name__

    @property
    def _replayer(self) -> Replayer:
        return cast(Replayer, self.original)

    @property
    def _sampler(self) -> Callable[..., Any]:
        """The policy's own, below all interceptors; there are none once the policy is left as it is."""
        stack = list(stack_on(self.owner, self.attribute))
        return cast(Callable[..., Any], stack[-1].original if stack else getattr(self.owner, self.attribute))

    def _guidance(self) -> Guidance:
        """What knows this policy's guided chunks, and has learned nothing yet."""
        if POLICIES["groot"] in map(dotted_name, type(self.policy).__mro__):
            return Overlap(self.policy, self.owner, self.attribute)
        return PrefixWeights(self.policy)

    def _prepare(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Prepare, and make the chunk that was asked for."""
        self._is_due = False
        logger.info(
            "bac: %s is being prepared for replay, which takes as long as some %d chunks %s", self._name, _CHUNKS, LEAVE
        )
        started, before = time.perf_counter(), RandomState(flatten((args, options))[0])
        state = state_of(self.owner)
        try:
            if self.guidance.is_watched:
                raise NotPrepared("RTC's debug tracker looks at every step; leave --inference.rtc.debug out")
            plan, trial = self._record_and_try(args, options, before)
            guided = self._prepare_guided(args, options, before) if self._is_chunked(options) else ""
            self._tell(trial, plan, guided, time.perf_counter() - started)
        except NotPrepared as reason:
            state.put_back()
            self._leave(str(reason))
        except Exception as error:
            state.put_back()
            self._leave(f"its preparation failed ({type(error).__name__}: {_brief(error)})")
        else:
            if self._is_chunked(options):
                self._is_final, self._replayer.sights = True, 0
            if trial.after is not None:
                trial.after.restore()
                clock.hide(time.perf_counter() - started - trial.wrapped_s)  # all but the time of one chunk
                return trial.output
            state.put_back()
        before.restore()
        clock.hide(time.perf_counter() - started)
        return self.original(*args, **self.guidance.fit(options))

    def _record_and_try(
        self, args: tuple[Any, ...], options: dict[str, Any], before: RandomState
    ) -> tuple[Plan, Trial]:
        """Record a plan, and run the untouched policy and the plan.

        Raises:
            NotPrepared: There is no plan, or it is not to be used.
        """
        untouched, wrapped = partial(self._untouched, args, options), partial(self._wrapped, args, options)
        if self.follows:  # timed first: the untouched policy changes its noise scheduler, which a plan watches
            untouched_s = latency(untouched, before)
            plan = self._record(wrapped)
            with self._replaying(plan):
                return plan, Trial(untouched_s, latency(wrapped, before))
        plan = self._record(wrapped)
        with self._replaying(plan):
            trial = Trial.by_turns(untouched, wrapped, before, flatten((args, options))[0])
        if not trial.is_same:
            raise NotPrepared(f"a replayed chunk differs by {trial.error:.1e} from the policy's own")
        if not trial.is_faster:
            raise NotPrepared(
                f"replay brings no gain on this device ({1e3 * trial.wrapped_s:.1f} ms a chunk, "
                f"{1e3 * trial.untouched_s:.1f} before)"
            )
        return plan, trial

    def _prepare_guided(self, args: tuple[Any, ...], options: dict[str, Any], before: RandomState) -> str:
        """Prepare the chunks that RTC guides towards the last one; what came of it, in words."""
        if not self.guidance.guides:
            return ""
        if not self.guidance.knows(options):
            return "; guided chunks are not replayed: their delay is a number in the program, not an argument"
        device = next(self.owner.parameters()).device
        run = cast(Interceptor, self._replayer.original)
        put_above(self.owner, self.attribute, run, self.guidance.below())
        try:
            example = self.guidance.example(options, device=device)
            if not self.guidance.learn(example, partial(self._untouched, args, example)):
                raise NotPrepared("bac does not know where they read their delay")
            plan, trial = self._record_and_try(args, example, before)
        except NotPrepared as reason:
            self.guidance = self._guidance()
            return f"; guided chunks are not replayed: {reason}"
        return (
            f"; guided {1e3 * trial.wrapped_s:.1f}, {1e3 * trial.untouched_s:.1f} before, {plan.num_bytes / 1e6:.1f} MB"
        )

    def _is_chunked(self, options: dict[str, Any]) -> bool:
        """Whether the robot moves while chunks are made, as under RTC."""
        return _IS_RTC in options or self.guidance.is_on

    def _record(self, wrapped: Callable[[], Any]) -> Plan:
        """Record the run, and the guard's fallback if there is one.

        Raises:
            NotPrepared: It cannot be recorded.
        """
        replayer = self._replayer
        for fallback in (True, False) if replayer.has_fallback else (False,):
            with replayer.recording(fallback=fallback):
                wrapped()
        if replayer.answered is None:
            raise NotPrepared("; ".join((*replayer.refusals, *replayer.interruptions)) or "no plan was made")
        return replayer.answered

    @contextmanager
    def _replaying(self, plan: Plan) -> Iterator[None]:
        """Within the context the wrapped policy replays, whatever a guard orders.

        Raises:
            NotPrepared: At the end, if it did not.
        """
        with self._replayer.recording():
            yield
        if self._replayer.answered is not plan:
            raise NotPrepared("; ".join(self._replayer.interruptions) or "its plan did not stay valid")

    def _wrapped(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        given, named = fresh((args, options))
        return self.original(*given, **self.guidance.fit(named))

    def _untouched(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make a chunk with the policy as it would be without `bac`."""
        given, named = fresh((args, options))
        with lifted(self.policy, but=(self.owner, self.attribute)):
            return self._sampler(*given, **named)

    def _tell(self, trial: Trial, plan: Plan, guided: str, prepared_s: float) -> None:
        actions = "same actions" if trial.error == 0.0 else f"actions equal within {trial.error:.0e}"
        if self.follows:
            actions = f"following {self.follows}"
        self.state = f"{1e3 * trial.wrapped_s:.1f} ms a chunk, {1e3 * trial.untouched_s:.1f} before, {actions}{guided}"
        cost = f"prepared in {prepared_s:.1f} s, {plan.num_bytes / 1e6:.1f} MB"
        logger.info("bac: %s replays: %s; %s %s", self._name, self.state, cost, LEAVE)

    def _tell_once(self) -> None:
        self._is_final = False
        why = (
            "; ".join(self._replayer.interruptions)
            or "they are of another kind or shape than those prepared, or of another text"
        )
        logger.warning("bac: %s: some chunks are not replayed: %s", self._name, why)

    def _leave(self, reason: str) -> None:
        """Take everything off that only replay needs."""
        how = "it is intercepted" if self.follows else "it runs as it is"
        self.state = f"not replayed: {reason}"
        self.guidance = self._guidance()  # the sampler gets RTC's options as they come
        logger.warning("bac: %s is not replayed, %s: %s", self._name, how, reason)
        if self.follows:
            self._replayer.sights = 0  # nor is it tried again while a robot moves
            return
        take_off_all(self.policy)
        self.original = getattr(self.owner, self.attribute)  # for this call, and for a thread that waits here


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def prepare_at_first_chunk(policy: nn.Module, *, follows: str = "") -> bool:
    """Prepare a policy for replay when it is asked for its first action chunk.

    Args:
        policy: Wrapped by `bac.wrap` with replay.
        follows: What it follows rather than its own way to denoise, in words.

    Returns:
        Whether it will be; False if it was wrapped without replay.
    """
    for owner, attribute, _ in interceptors(policy):
        for found in stack_on(owner, attribute):
            if isinstance(found, Replayer):
                put_above(owner, attribute, found, Preparation(policy, owner, attribute, follows=follows))
                return True
    return False
