"""Records a whole call of a policy: observations in, action chunk out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bac.adapters.host import Host
from bac.caching.interceptors.patch import stack_on, stacked
from bac.errors import RunError
from bac.plan.bounds import tolerance_of
from bac.plan.build import refusing
from bac.plan.codegen import generate
from bac.plan.executor import Replayer
from bac.plan.passes import PORTABLE, PORTABLE_FAST, specialise
from bac.plan.program import Program
from bac.plan.randomness import RandomState
from bac.plan.reads import Reads
from bac.plan.recording import record_twice
from bac.plan.refusal import Refusal
from bac.plan.signature import flatten, fresh
from bac.plan.staleness import Staleness
from bac.plan.surroundings import no_collection
from bac.solvers.interceptor import SolverInterceptor


@dataclass(frozen=True)
class Recorded:
    """The program of a policy's call, and where its inputs come from.

    Attributes:
        exact: The specialised program, bit-equal to the policy; its one output is the action chunk.
        fast: The same with roundings in another order; `exact` itself if that would change the actions too much.
        names: Value of the programs to key of the observation batch, for the tensors that they read.
        chunk: The policy's own chunk of that batch.
    """

    exact: Program
    fast: Program
    names: Mapping[int, str]
    chunk: Tensor


def record(host: Host, batch: Mapping[str, Any]) -> Recorded:
    """Record `host.predict`, with what stands on the policy, for observations like these.

    Args:
        host: The policy. If it is wrapped for replay, its runs are interpreted meanwhile.
        batch: Observations; tensors become inputs, everything else is part of the program.

    Raises:
        RunError: The call cannot be recorded; the message gives the reason.
    """
    try:
        with interpreting(host.policy), host.own_randomness(), torch.no_grad():
            exact, fast, chunk = _programs_of(host, dict(batch))
    except Refusal as refusal:
        raise RunError(
            f"{type(host.policy).__name__}: its denoising run cannot be exported: {refusal}. An export holds one fixed "
            "program: wrap the policy with a bac.Schedule or a bac.Denoising that does not decide during the run"
        ) from refusal
    return Recorded(exact, fast, _names(exact, batch), chunk)


@contextmanager
def interpreting(policy: nn.Module) -> Iterator[None]:
    """Within the context, a wrapped policy replays nothing and records nothing."""
    replayers = [found for found in stacked(policy) if isinstance(found, Replayer)]
    if not replayers:
        yield
        return
    with replayers[0].resting():
        yield


def _programs_of(host: Host, batch: dict[str, Any]) -> tuple[Program, Program, Tensor]:
    def predict(given: dict[str, Any]) -> Any:
        host.reset()  # the call may queue observations and actions
        chunk = host.predict(given)
        host.reset()
        return chunk

    arguments = fresh(((batch,), {}))
    leaves, reads = flatten(arguments)[0], Reads()
    before = RandomState(leaves)
    with reads.noting():
        chunk = predict(fresh(batch))
    with no_collection(), refusing():
        held, swapped = _of_solver(host)
        staleness = Staleness(host.policy, (*held, *leaves), swapped, reads=reads)
        program, recordings = record_twice(predict, staleness, arguments, before, chunk)
        with torch.inference_mode():
            exact, _ = specialise(program, PORTABLE)
            fast, _ = specialise(program, PORTABLE_FAST)
            replay, _ = generate(fast)
            error = max(recording.error_of(replay) for recording in recordings)
    return exact, fast if error <= tolerance_of(chunk) else exact, chunk


def _of_solver(host: Host) -> tuple[list[object], list[tuple[object, str]]]:
    """Objects that a solver's interceptor holds, and attributes that it swaps during the call."""
    stack = stack_on(host.sampler_owner, host.sampler_attribute)
    swaps = [swap for found in stack if isinstance(found, SolverInterceptor) for swap in found.swaps]
    return [s.value for s in swaps if not isinstance(s.value, int)], [(s.owner, s.attribute) for s in swaps]


def _names(program: Program, batch: Mapping[str, Any]) -> dict[int, str]:
    """Value to key of the batch, for the inputs that an instruction reads."""
    places: list[str] = []
    for name, value in batch.items():
        inside = len(flatten(value)[0])
        places += [name] if isinstance(value, Tensor) else [f"{name}.{place}" for place in range(inside)]
    read = {value for instruction in program.instructions for value in instruction.inputs}.union(program.outputs)
    return {value: places[place] for value, place in program.inputs.items() if value in read and value in program.meta}
