"""The interceptors that put a solver into a flow-matching sampler: one on each place, one on the sampler itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bac.adapters.flow import Flow, Passes
from bac.adapters.host import Host
from bac.caching.block import Site
from bac.caching.interceptors.patch import Interceptor, put_on, take_off
from bac.errors import ScheduleError
from bac.solvers.adams_bashforth import FlowSolver
from bac.solvers.flow import FlowRun
from bac.solvers.guidance import Guidance
from bac.solvers.interceptor import Argument, SolverInterceptor, Swap, swaps_for
from bac.solvers.solver import Solver


class PlaceInterceptor(Interceptor):
    """Intercepts a call through which sample, time or velocity pass; outside the run it changes nothing.

    Args:
        run: The solver's run.
        passes: What is done with the call.
    """

    role = "solver"

    def __init__(self, run: FlowRun, passes: Passes) -> None:
        self.run, self.passes = run, passes

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self.run.thread != threading.get_ident():
            return self.original(*inputs, **options)
        return self.passes(self.run, self.original, inputs, options)


class FlowInterceptor(SolverInterceptor):
    """Intercepts a flow-matching sampler: begins and ends the solver's run, and swaps as any solver's interceptor.

    Args:
        run: The solver's run.
        flow: The sampler.
        swaps: Attributes and arguments with their values, among them the number of steps.
        name: Name of the solver, for descriptions.
    """

    def __init__(self, run: FlowRun, flow: Flow, swaps: Sequence[Swap | Argument], name: str) -> None:
        steppers = (Swap(part.owner, part.attribute, part.make(run)) for part in flow.steppers)
        super().__init__((*swaps, *steppers))
        self.run, self.flow, self.name = run, flow, name
        self._guidance, self._argument = flow.guidance, flow.guidance_argument

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.run.begin()
        try:
            with self._guided(options):
                output = super().__call__(*inputs, **options)
            self.run.check_complete()
            return output
        finally:
            self.run.end()

    @contextmanager
    def _guided(self, options: dict[str, Any]) -> Iterator[None]:
        """Let the loop meet a stand-in for its processor of real-time chunking, if it has one now."""
        if (given := options.get(self._argument)) is not None:
            options[self._argument] = Guidance(given, self.run)
        owner, attribute = self._guidance or (None, "")
        processor = getattr(owner, attribute, None)  # read at the call: LeRobot may make it after `wrap`
        if processor is None:
            yield
            return
        setattr(owner, attribute, Guidance(processor, self.run))
        try:
            yield
        finally:
            setattr(owner, attribute, processor)

    def __str__(self) -> str:
        times = ", ".join(f"{time:g}" for time in self.run.noise)
        return f"{self.name} at {times}; {super().__str__()}"


def solver_interceptor(
    host: Host, solver: Solver | None, timesteps: Sequence[float], num_steps: int | None
) -> SolverInterceptor | None:
    """The sampler's interceptor for a solver or another number of steps; None if nothing changes.

    Args:
        host: The policy.
        solver: The solver; None for the policy's own.
        timesteps: The solver's timesteps, `[K]`, decreasing.
        num_steps: Denoising steps K; None for the policy's number.

    Raises:
        ScheduleError: The policy does not take the solver, its timesteps or the number of steps.
    """
    flow = host.flow
    if solver is None or flow is None:
        swaps = swaps_for(host, solver, timesteps, num_steps)
        return SolverInterceptor(swaps) if swaps else None
    if not isinstance(solver, FlowSolver):
        raise ScheduleError(
            f"solver: {type(host.policy).__name__} is a flow-matching policy, which takes Euler, Adams-Bashforth or "
            f"the coefficients of a fitted multistep, got {solver.name}"
        )
    return flow_interceptor(host, FlowRun(flow, timesteps, solver.rows(timesteps)), solver.name)


def flow_interceptor(host: Host, run: FlowRun, name: str) -> FlowInterceptor:
    """The interceptor of a flow-matching sampler for a solver's run.

    Raises:
        ScheduleError: The policy does not take the number of steps, or a place is not as described.
    """
    flow = host.flow or Flow()
    for place in flow.places:
        place.check()
    # A stepper of the policy's own says how many steps there are.
    swaps = () if flow.steppers and not host.takes_fewer_steps else swaps_for(host, None, (), len(run.rows))
    return FlowInterceptor(run, flow, swaps, name)


def places(host: Host, run: FlowRun) -> tuple[tuple[Site, PlaceInterceptor], ...]:
    """The interceptors of a sampler's places, with their sites."""
    found = () if host.flow is None else host.flow.places
    return tuple((place.site, PlaceInterceptor(run, place.passes)) for place in found)


@contextmanager
def flowing(host: Host, interceptor: FlowInterceptor) -> Iterator[None]:
    """Within the context, every call of the policy's sampler runs under a solver, and nothing else is intercepted."""
    sites = [(Site(host.sampler_owner, host.sampler_attribute), interceptor), *places(host, interceptor.run)]
    for site, one in sites:
        put_on(site.owner, site.attribute, one)
    try:
        yield
    finally:
        for site, _ in reversed(sites):
            take_off(site.owner, site.attribute)
