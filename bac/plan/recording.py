"""Records a denoising run twice, on other numbers each, and compares the two recordings."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.plan.codegen import Function
from bac.plan.peeks import Peeks
from bac.plan.program import Program
from bac.plan.randomness import RandomState, other_numbers, whole_numbers
from bac.plan.refusal import Refusal
from bac.plan.returned import Returned, distance, tensors_in
from bac.plan.signature import flatten, fresh, replace_leaves
from bac.plan.staleness import Staleness
from bac.plan.tape import Tape, difference, stranger

_NEEDS_GRADIENTS = "does not require grad"  # PyTorch, of a run that differentiates, as real-time chunking does


@dataclass(frozen=True)
class Recording:
    """A denoising run, made twice on the same draws: interpreted without a tape, then recorded on tape.

    The interpreted one is the reference, because a tape may change roundings: under a tape, PyTorch takes other paths
    through composite operators.

    Attributes:
        leaves: The run's arguments, flattened.
        before: State of its generators before the run.
        outputs: Tensors that the interpreted run computed.
        returned: What else it returned.
        tape: The tape of the recorded run.
        taped: Tensors that the recorded run computed.
    """

    leaves: Sequence[Any]
    before: RandomState
    outputs: Sequence[Tensor]
    returned: Returned
    tape: Tape
    taped: Sequence[Tensor]

    def seconds(self, replay: Function) -> float:
        """Replay on the same draws and return the time it takes [s]."""
        self.before.restore()
        started = time.perf_counter()
        for output in replay(self.leaves):
            if output.device.type == "cuda":
                torch.cuda.synchronize(output.device)
        return time.perf_counter() - started

    def error_of(self, replay: Function) -> float:
        """Replay on the same draws; return the largest difference to an output, relative to its largest number."""
        self.before.restore()
        return distance(list(self.outputs), list(replay(self.leaves)))


def record_twice(
    sampler: Callable[..., Any], staleness: Staleness, arguments: Any, before: RandomState, output: Any
) -> tuple[Program, tuple[Recording, Recording]]:
    """Record a call with known output, and one more on other numbers. Returns the program and both recordings."""
    first = _record(sampler, staleness, arguments, before, output)
    peeked, weights = _peeked(sampler, staleness, arguments, before)
    first.tape.pinned |= peeked
    program = first.tape.program(first.taped)
    second = _record_other(sampler, staleness, arguments, first, peeked)
    if reason := stranger(first.tape, second.tape):
        raise Refusal(reason)
    # After the runs, which replace some objects themselves.
    staleness.settle({id(weight): weight for weight in (*first.tape.borrowed.values(), *weights)}.values())
    return program, (first, second)


def _record_other(
    sampler: Callable[..., Any], staleness: Staleness, arguments: Any, first: Recording, peeked: set[int]
) -> Recording:
    """Record the program of the first recording on other numbers: pictures, words and masks too, if that can be.

    Words in any order, say, may be none that the policy takes. Then they stay as they are.
    """
    if whole := whole_numbers(first.leaves) - first.tape.pinned:
        with suppress(Refusal):
            return _like_first(sampler, staleness, arguments, first, peeked, whole)
    return _like_first(sampler, staleness, arguments, first, peeked, ())


def _like_first(
    sampler: Callable[..., Any],
    staleness: Staleness,
    arguments: Any,
    first: Recording,
    peeked: set[int],
    changed: Collection[int],
) -> Recording:
    replacements = iter(other_numbers(first.leaves, whole=changed))
    others = replace_leaves(arguments, lambda _: next(replacements))
    other_before = RandomState(flatten(others)[0])
    positional, keywords = fresh(others)
    try:
        other_output = sampler(*positional, **keywords)
    except Exception as error:
        raise Refusal(f"a second run, on other numbers, failed ({error!r})") from error
    if changed and any(bool(tensor.isnan().any()) for tensor in tensors_in(other_output)):
        raise Refusal("its actions for other pictures, words or masks are not numbers (NaN)")
    second = _record(sampler, staleness, others, other_before, other_output)
    second.tape.pinned |= peeked
    second.tape.program(second.taped)
    if first.returned.key != second.returned.key:
        raise Refusal("what it returns beside tensors depends on its arguments")
    if reason := difference(first.tape, second.tape):
        raise Refusal(reason)
    return second


def _record(
    sampler: Callable[..., Any], staleness: Staleness, arguments: Any, before: RandomState, output: Any
) -> Recording:
    leaves, _ = flatten(arguments)
    returned = Returned.of(output, leaves)
    for mode in (torch.inference_mode, torch.no_grad):  # composite operators arrive whole only in the first
        positional, keywords = fresh(arguments)
        before.restore()
        try:
            with mode(), Tape(leaves, staleness.tensors) as tape:
                taped = sampler(*positional, **keywords)
            if Returned.of(taped, leaves).key != returned.key:
                raise Refusal("what it returns beside tensors differs from run to run")
            return Recording(leaves, before, returned.computed(output), returned, tape, returned.computed(taped))
        except Refusal:
            raise
        except Exception as error:
            failure = error
            if _NEEDS_GRADIENTS not in str(error):
                break
    raise Refusal(f"a second run failed ({failure!r})") from failure


def _peeked(
    sampler: Callable[..., Any], staleness: Staleness, arguments: Any, before: RandomState
) -> tuple[set[int], Sequence[Tensor]]:
    """Positions of the arguments whose numbers a run reads past the operators, and the weights that it reads so.

    Raises:
        Refusal: It reads what depends on other arguments or on noise.
    """
    found: list[str] = []
    leaves, _ = flatten(arguments)
    tape = Tape(leaves, staleness.tensors)
    for look in (Peeks(lambda _, reader: found.append(reader)), Peeks(tape.peek)):
        positional, keywords = fresh(arguments)
        before.restore()
        try:
            with torch.inference_mode(), tape if found else nullcontext(), look:
                sampler(*positional, **keywords)
        except Refusal:
            raise
        except Exception:
            return set(), ()  # it needs gradients, say; other numbers still tell the two recordings apart
        if not found:
            return set(), ()
    if tape.refusal is not None:
        raise tape.refusal
    return tape.pinned, tuple(tape.borrowed.values())
