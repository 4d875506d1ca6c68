"""Record twice, specialise, check: how a plan comes to be trusted."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bac.plan.codegen import generate
from bac.plan.guard import Guard
from bac.plan.passes import EXACT, FAST, specialise
from bac.plan.plan import Plan
from bac.plan.program import Program
from bac.plan.randomness import RandomState, other_numbers
from bac.plan.signature import flatten, replace_leaves
from bac.plan.tape import Refusal, Tape, difference

TOLERANCE = 1e-5  # of the largest output; what re-association may cost in float32


@dataclass(frozen=True)
class Recording:
    """One recorded run: its arguments, where its generators were, what it returned."""

    leaves: Sequence[Any]
    before: RandomState
    tape: Tape
    output: Tensor

    def error(self, replay: Callable[[Sequence[Any]], tuple[Tensor, ...]]) -> float:
        """Run again on the same draws; largest difference to what was recorded, relative to the largest output."""
        self.before.restore()
        (output,) = replay(self.leaves)
        if torch.equal(output, self.output):
            return 0.0
        scale = self.output.abs().max().clamp_min(1e-30)
        return float((output - self.output).abs().max() / scale)


def build(
    sampler: Callable[..., Any],
    owner: nn.Module,
    args: tuple[Any, ...],
    options: Mapping[str, Any],
    *,
    exact: bool = True,
) -> tuple[Plan, Tensor]:
    """Make a plan out of one call of the sampler, whose result is returned too.

    The call is recorded, and so is a second one on other numbers. The two must be the same program, and the
    specialised program must reproduce both results: bit for bit if `exact`, within `TOLERANCE` otherwise.

    Args:
        sampler: Makes one denoising run, with the interceptors on.
        owner: Module it is a method of.
        args: Of this call. Its generators advance as in any call.
        options: Keyword arguments of this call.
        exact: Leave out transformations that change the order of roundings.

    Raises:
        Refusal: The run cannot be replayed; all generators are as they were before.
    """
    started = time.perf_counter()
    guard = Guard(owner)
    leaves, _ = flatten((args, options))
    before = RandomState(leaves)
    try:
        with _no_collection(), torch.inference_mode():
            first = _record(sampler, guard, leaves, (args, options))
            after = RandomState(leaves)
            second = _record_other(sampler, guard, leaves, (args, options))
            if reason := difference(first.tape, second.tape):
                raise Refusal(reason)
            guard.settle(first.tape.borrowed.values())
            program = first.tape.program(first.output)
            plan = _plan(program, guard, (first, second), exact, started)
    except Refusal:
        before.restore()
        raise
    after.restore()
    return plan, first.output


def _record(sampler: Callable[..., Any], guard: Guard, leaves: Sequence[Any], arguments: Any) -> Recording:
    before = RandomState(leaves)
    with Tape(leaves, guard.tensors) as tape:
        output = sampler(*arguments[0], **arguments[1])
    if not isinstance(output, Tensor):
        raise Refusal(f"the sampler returns {type(output).__name__}, not one tensor")
    return Recording(leaves, before, tape, output)


def _record_other(sampler: Callable[..., Any], guard: Guard, leaves: Sequence[Any], arguments: Any) -> Recording:
    others = other_numbers(leaves)
    remaining = iter(others)
    try:
        return _record(sampler, guard, others, replace_leaves(arguments, lambda _: next(remaining)))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Refusal(f"a second run, on other numbers, failed ({error})") from error


def _plan(program: Program, guard: Guard, recordings: Sequence[Recording], exact: bool, started: float) -> Plan:
    bound = _bound(recordings[0].output, exact)
    special, stages, skipped = specialise(program, EXACT if exact else FAST)
    replay, source = generate(special)
    error = max(recording.error(replay) for recording in recordings)
    if not error <= bound and not exact:
        special, stages, skipped = specialise(program, EXACT)
        skipped += (f"re-association: an error of {error:.1e} where {bound:.1e} is allowed",)
        exact, bound = True, _bound(recordings[0].output, True)
        replay, source = generate(special)
        error = max(recording.error(replay) for recording in recordings)
    if not error <= bound:
        raise Refusal(f"the specialised program differs from the interceptor by {error:.1e}")
    tensors = [leaf for leaf in recordings[0].leaves if isinstance(leaf, Tensor)]
    return Plan(
        program=special,
        replay=replay,
        source=source,
        guard=guard,
        arguments=", ".join(f"{list(t.shape)} {t.dtype} on {t.device}".replace("torch.", "") for t in tensors),
        exact=exact,
        stages=stages,
        skipped=skipped,
        max_error=error,
        build_s=time.perf_counter() - started,
    )


def _bound(output: Tensor, exact: bool) -> float:
    if exact and output.device.type == "cpu":
        return 0.0
    return max(TOLERANCE, 100 * torch.finfo(output.dtype).eps if output.dtype != torch.float32 else 0.0)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hundreds of thousands of small objects are made and kept; looking for garbage among them doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
