"""Builds a plan: record two runs, specialise the program, check it against both."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bac.plan import packed
from bac.plan.bounds import bounds
from bac.plan.codegen import Function, generate
from bac.plan.cuda import GraphedReplay
from bac.plan.inductor import compile_pieces
from bac.plan.passes import BETWEEN, CAUTIOUS, COMPILED, EXACT, FAST, Pass, specialise
from bac.plan.plan import Plan, Stage
from bac.plan.program import Program
from bac.plan.randomness import RandomState
from bac.plan.reads import Reads
from bac.plan.recording import Recording, record_twice
from bac.plan.refusal import Postponed, Refusal
from bac.plan.replay import Replay
from bac.plan.returned import same, tensors_in
from bac.plan.signature import flatten, fresh
from bac.plan.staleness import Spot, Staleness
from bac.plan.state import Writes
from bac.plan.surroundings import as_recorded, no_collection


@dataclass(frozen=True)
class Compiled:
    """A specialised program in its compiled form, with its error on the recorded runs."""

    program: Program
    stages: tuple[Stage, ...]
    replay: Function
    source: str
    error: float
    replay_s: float
    exact: bool = False
    skipped: tuple[str, ...] = ()
    tolerance: float = 0.0

    def plan(self, staleness: Staleness, recording: Recording, *, build_s: float) -> Plan:
        """Make the plan for arguments like those of a recording."""
        leaves, pinned = recording.leaves, tuple(sorted(recording.tape.pinned))
        described = (_describe(leaf, place in pinned) for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
        arguments = ", ".join(described)
        return Plan(
            program=self.program,
            replay=self.replay,
            returned=recording.returned,
            pinned=pinned,
            source=self.source,
            staleness=staleness,
            arguments=arguments,
            exact=self.exact,
            stages=self.stages,
            skipped=self.skipped,
            max_error=self.error,
            tolerance=self.tolerance,
            build_s=build_s,
            replay_s=self.replay_s,
        )


def build(
    sampler: Callable[..., Any],
    owner: nn.Module,
    args: tuple[Any, ...],
    options: dict[str, Any],
    *,
    replay: Replay,
    held: Sequence[object] = (),
    swapped: Sequence[tuple[object, str]] = (),
    ignored: Collection[Spot] = (),
    earlier: Callable[[], Plan | None] = lambda: None,
) -> tuple[Plan | Refusal, Any]:
    """Make a plan from one call of the sampler.

    The call is interpreted for the caller, then repeated on tape. Both happen again on other numbers. The two tapes
    must hold the same program, and the specialised program must reproduce the interpreted outputs: bit for bit if
    `replay.exact`, within `bac.plan.bounds` otherwise. Afterwards the policy remembers what it remembered after the
    caller's run (`bac.plan.state`).

    Args:
        sampler: Makes one denoising run, with the interceptors on.
        owner: Module whose weights it reads.
        args: Arguments of this call. Its generators advance as in any call.
        options: Keyword arguments of this call.
        replay: Options of replay.
        held: Objects besides `owner` that the call reads; see `Staleness`.
        swapped: Attributes that another value replaces during the call; see `Staleness`.
        ignored: Places that need not stay as they are; see `Staleness`.
        earlier: Asked after the call: an earlier plan that holds again, because the call undid what had changed.

    Returns:
        The plan, or the reason why there is none (`Postponed` if another call may have one); and the output of the
        call.
    """
    started = time.perf_counter()
    arguments = fresh((args, options))  # before the run, which may write into a batch
    leaves, reads = flatten(arguments)[0], Reads()
    before, writes = RandomState(leaves), Writes(leaves)
    with reads.noting():
        output = sampler(*args, **options)
    if any(bool(tensor.isnan().any()) for tensor in tensors_in(output)):
        return Postponed("its actions are not numbers (NaN), so a later chunk is recorded"), output
    if (plan := earlier()) is not None:
        return plan, output
    if writes.happened():
        return Refusal("it writes into an argument"), output
    after, staleness = RandomState(leaves), None
    try:
        with no_collection(), refusing():
            watched = (*held, *leaves)  # of an argument that is an object, attributes may change
            staleness = Staleness(owner, watched, swapped, reads=reads, ignored=ignored)
            program, recordings = record_twice(sampler, staleness, arguments, before, output)
            with torch.inference_mode(), as_recorded():
                compiled = _compile(program, recordings, replay)
        return compiled.plan(staleness, recordings[0], build_s=time.perf_counter() - started), output
    except Refusal as refusal:
        if staleness is None:
            return refusal, output
        return _judged(refusal, sampler, arguments, before, output), output
    finally:
        if staleness is not None:
            staleness.state.put_back()
        after.restore()  # for the caller, one run was made


def _judged(refusal: Refusal, sampler: Callable[..., Any], arguments: Any, before: RandomState, output: Any) -> Refusal:
    """The refusal; `Postponed` if the recorded call was a first one, after which the sampler does something else.

    Two more calls on the same numbers tell. If they agree with each other, but not with the recorded call, a later
    call can be recorded. If all three differ, the sampler has a state that no plan can hold.
    """
    outputs = [output]
    try:
        for _ in range(2):
            before.restore()
            positional, keywords = fresh(arguments)
            outputs.append(sampler(*positional, **keywords))
    except Exception:  # whatever a policy raises at a run that is not the caller's
        return refusal
    first, second, third = outputs
    if same(first, second) or not same(second, third):
        return refusal
    return Postponed("its first call differs from the next ones, so a later chunk is recorded", was_tried=True)


def _compile(program: Program, recordings: Sequence[Recording], how: Replay) -> Compiled:
    """Specialise and check, the fastest allowed form first. The result lists the skipped transformations."""
    exact_bound, fast_bound = bounds(program, recordings[0].outputs, on_gpu=_is_on_gpu(program))
    skipped: list[str] = []
    for passes, compiler in ((COMPILED, True), (FAST, False)) if not how.exact else ():
        if compiler and not how.compile:
            continue
        what = "Inductor" if compiler else "re-association"
        try:
            compiled = _compile_with(program, recordings, passes, compiler, skipped)
        except Exception as error:  # a compiler raises errors of its own, and those of the files that it writes
            skipped.append(f"{what}: {_first_line(error)}")
            continue
        if compiled.error <= fast_bound:
            return replace(compiled, skipped=tuple(skipped), tolerance=fast_bound)
        skipped.append(f"{what}: an error of {compiled.error:.1e} where {fast_bound:.0e} is allowed")
    compiled = _compile_with(program, recordings, EXACT, False, skipped)
    if not compiled.error <= exact_bound:  # on some processors BLAS rounds a split product differently
        skipped.append(
            f"split tokens: an error of {compiled.error:.1e} on this processor, or of norms and attention in place"
        )
        compiled = _compile_with(program, recordings, CAUTIOUS, False, skipped)
    if not compiled.error <= exact_bound:  # `not <=` rather than `>`, so that NaN is refused too
        raise Refusal(f"the specialised program differs from the interceptor by {compiled.error:.1e}")
    return replace(compiled, exact=True, skipped=tuple(skipped), tolerance=exact_bound)


def _compile_with(
    program: Program, recordings: Sequence[Recording], passes: Sequence[Pass], inductor: bool, skipped: list[str]
) -> Compiled:
    special, stages = specialise(program, passes)
    if inductor:
        special, between = specialise(compile_pieces(special), BETWEEN)
        if reason := packed.missing():
            skipped.append(f"packed weights: {reason}")
        stages += (replace(between[0], name="compile pieces"), *between[1:])
    replay, source = generate(special)
    if _is_on_gpu(program):
        try:
            replay = GraphedReplay(special, recordings[0].leaves)
        except (Refusal, RuntimeError) as error:  # the flat program stays
            skipped.append(f"CUDA graph: {_first_line(error)}")
    largest = max(recording.error_of(replay) for recording in recordings)
    return Compiled(special, stages, replay, source, largest, recordings[0].seconds(replay))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _is_on_gpu(program: Program) -> bool:
    return any(meta.device.type == "cuda" for meta in program.meta.values())


def _describe(tensor: Tensor, is_pinned: bool) -> str:
    described = f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}".replace("torch.", "")
    return f"{described} with these numbers" if is_pinned else described


@contextmanager
def refusing() -> Iterator[None]:
    """Turn whatever fails into a refusal: the run itself was made."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(f"it cannot be specialised ({error!r})") from error
