"""The interceptor that gives a sampler a solver, or another number of steps, for the time of one call.

A sampler reads its noise scheduler and its number of steps from attributes. The interceptor sets other values when the
sampler is entered, and restores the policy's own when it returns or raises. Between two calls the policy is therefore
unchanged: it can be saved, copied and configured, and `bac.unwrap` has nothing to restore.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bac.adapters.host import Host
from bac.caching.interceptors.patch import Interceptor, put_on, take_off
from bac.errors import RunError, ScheduleError
from bac.solvers.solver import Solver


@dataclass(frozen=True, eq=False)
class Swap:
    """An attribute and its value during a call.

    Attributes:
        owner: Object that holds the attribute.
        attribute: Name of the attribute.
        value: Value during the call.
    """

    owner: Any
    attribute: str
    value: Any


@dataclass(frozen=True, eq=False)
class Argument:
    """A keyword argument of the sampler and its value during a call.

    Attributes:
        name: Name of the argument.
        value: Value during the call.
        is_optional: A caller may leave it out.
    """

    name: str
    value: Any
    is_optional: bool = False


class SolverInterceptor(Interceptor):
    """Intercepts a sampler and swaps attributes and arguments for the time of the call.

    Args:
        swaps: The attributes and arguments with their values.
    """

    role = "solver"

    def __init__(self, swaps: Sequence[Swap | Argument]) -> None:
        self.swaps = tuple(swap for swap in swaps if isinstance(swap, Swap))
        arguments = [swap for swap in swaps if isinstance(swap, Argument)]
        self.arguments = {swap.name: swap.value for swap in arguments}
        self.required = tuple(swap.name for swap in arguments if not swap.is_optional)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if missing := [name for name in self.required if name not in options]:
            raise RunError(
                f"{missing[0]}: the sampler must be called with it as a keyword, got {', '.join(options) or 'none'}; "
                "call it through the policy: predict_action_chunk, select_action"
            )
        options |= self.arguments
        # Read at the call, since the user may have configured the policy since `wrap`.
        before = [(swap.attribute in vars(swap.owner), getattr(swap.owner, swap.attribute)) for swap in self.swaps]
        try:
            for swap in self.swaps:
                setattr(swap.owner, swap.attribute, swap.value)
            return self.original(*inputs, **options)
        finally:
            for swap, (is_own, value) in zip(self.swaps, before, strict=True):
                setattr(swap.owner, swap.attribute, value)
                if not is_own:  # it is the class's
                    delattr(swap.owner, swap.attribute)

    def __str__(self) -> str:
        values = {swap.attribute: swap.value for swap in self.swaps} | self.arguments
        words = ", ".join(f"{name} = {_short(value)}" for name, value in values.items())
        return f"swaps in for the call: {words}"


def _short(value: Any) -> str:
    return str(value) if isinstance(value, (int, float)) else type(value).__name__


def scheduler_swaps(host: Host, scheduler: Any, num_steps: int) -> tuple[Swap, ...]:
    """The swaps for a sampler that reads ``noise_scheduler`` and ``num_inference_steps``."""
    owner = host.sampler_owner
    return Swap(owner, "noise_scheduler", scheduler), Swap(owner, "num_inference_steps", num_steps)


def swaps_for(
    host: Host, solver: Solver | None, timesteps: Sequence[float], num_steps: int | None
) -> tuple[Swap | Argument, ...]:
    """The swaps for a solver, or for another number of steps of the policy's own; empty if nothing changes.

    Args:
        host: The policy.
        solver: The solver; None for the policy's own.
        timesteps: The solver's timesteps, `[K]`, decreasing.
        num_steps: Denoising steps K; None for the policy's number.

    Raises:
        ScheduleError: The policy does not take the solver or the number of steps.
    """
    name = type(host.policy).__name__
    if solver is not None:
        if not host.takes_solvers:
            why = host.why_no_solver or "bac knows no place for another"
            raise ScheduleError(
                f"solver: {name} has a solver of its own that cannot be replaced ({why}), got "
                f"{solver.name}; cache it as it is: bac.wrap(policy, schedule)"
            )
        if any(not float(timestep).is_integer() for timestep in timesteps):
            raise ScheduleError(
                f"timesteps: of {name} they are whole numbers, those of its training; shares of noise are for "
                f"flow-matching policies, as every preset is, got {tuple(timesteps)}; fit a solver to this one: "
                "bac.tune(policy, batches, target_hz=25)"
            )
        return scheduler_swaps(host, solver.scheduler(host.sampler_owner.noise_scheduler, timesteps), len(timesteps))
    if num_steps is None:
        return ()
    if host.num_steps_at is not None:  # even if it is the policy's number now, which the user may change later
        return (Swap(*host.num_steps_at, num_steps),)
    if host.num_steps_argument is not None:
        return (Argument(host.num_steps_argument, num_steps, host.num_steps_default),)
    if num_steps == host.num_steps:
        return ()
    if host.num_steps is None:  # only the run knows its number of steps, and checks it
        return ()
    raise ScheduleError(
        f"num_steps: bac does not know where {name} reads its number of denoising steps, {host.num_steps}; configure "
        f"it for {num_steps} yourself, or cache it as it is: bac.wrap(policy, schedule)"
    )


@contextmanager
def swapped(host: Host, swaps: Sequence[Swap]) -> Iterator[None]:
    """Within the context, every call of the policy's sampler runs under these swaps."""
    put_on(host.sampler_owner, host.sampler_attribute, SolverInterceptor(swaps))
    try:
        yield
    finally:
        take_off(host.sampler_owner, host.sampler_attribute)
