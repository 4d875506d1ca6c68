"""Fits a few-step solver to a flow-matching policy: its coefficients in closed form, its times by coordinate search.

The reference is a fine run of the same denoiser, through the same loop: a hundred steps by effective velocity. The
policy's own ten steps are an error away from the flow that they integrate, and a solver fitted to them would copy it;
that is the other reference, for guided runs and for whoever wants the same actions. A loop that mixes predicted clean
actions with its first noise, as X-VLA's, follows no flow, so its own steps are its reference.

A fit at given times costs as many evaluations as it has steps; the reference is made once. A search tries some thirty
times of its steps, on a grid: late steps are worth more than even ones, and which is a matter of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bac.adapters.flow import Flow
from bac.adapters.host import Host
from bac.caching.schedulers.search import coordinate_search
from bac.errors import ScheduleError
from bac.solvers.adams_bashforth import AdamsBashforth, FlowSolver
from bac.solvers.fitting import solve
from bac.solvers.flow import FlowRun
from bac.solvers.flow_interceptor import FlowInterceptor, flow_interceptor, flowing
from bac.solvers.multistep import Coefficients, Multistep
from bac.solvers.solver import Solver

NUM_FINE = 100  # steps of the reference
GRID = tuple((20 - place) / 20 for place in range(20))  # times of a search: 1, 0.95, ... 0.05; never 0
MOVES = (-4, -2, -1, 1, 2, 4)  # places on that grid
TINY = 1e-12  # smallest error, so that zero has a logarithm
_STARTS = {1: (0.8,), 2: (0.8, 0.15), 3: (0.8, 0.2, 0.05), 4: (0.9, 0.4, 0.15, 0.05)}
Run = Callable[[], object]


@dataclass(frozen=True)
class FlowFit:
    """A solver at times of its own, and how far its runs end from the fine ones.

    Attributes:
        solver: The solver.
        times: Shares of noise, `[K]`, decreasing.
        errors: Root mean square difference of the final sample to the fine run's, for each observation, `[N]`.
    """

    solver: Solver
    times: tuple[float, ...]
    errors: Tensor

    @property
    def error(self) -> float:
        """Root mean square of the observations' errors."""
        return float(self.errors.square().mean().sqrt())

    @property
    def typical_error(self) -> float:
        """Geometric mean of the observations' errors, in which the few where a run forks count as any other."""
        return float(self.errors.clamp_min(TINY).log().mean().exp())


class FlowFitter:
    """Fits solvers to one flow-matching policy, on some observations.

    Args:
        host: The untouched policy; it has a `flow`.
        run: Makes the denoising runs of all observations to fit on, always on the same noise and in the same order.
        num_steps: Steps of the reference; None for a hundred, or for the policy's own if it follows no flow.
        own: Whether the reference is the policy's own solver, at its own times.

    Attributes:
        num_evaluations: Evaluations of the denoiser so far, the reference's included; each of all observations.

    Raises:
        ScheduleError: The policy has no flow that takes solvers.
    """

    def __init__(self, host: Host, run: Run, num_steps: int | None = None, *, own: bool | None = None) -> None:
        if host.flow is None:
            raise ScheduleError(
                f"{type(host.policy).__name__}: only a flow-matching policy that takes solvers can be fitted to "
                f"({host.why_no_solver or 'it has none'}); describe its loop: bac.wrap(policy, what, flow=...)"
            )
        self.host, self._run, self.num_evaluations = host, run, 0
        self._flow: Flow = host.flow
        own = self._flow.clean if own is None else own
        count = num_steps or (host.num_steps if own and host.num_steps else NUM_FINE)
        even = tuple((count - step) / count for step in range(count))
        times = self._flow.own_shares(count)[:-1] if own else _told(self._flow, even)
        rows = own_rows(self._flow, times) if own else AdamsBashforth(2).rows(times)
        self._reference = _Recording(self._flow, times, rows)
        self._make(self._reference, count)

    def fit(self, times: Sequence[float]) -> FlowFit:
        """Solve for the coefficients at these times, in closed form.

        Args:
            times: Shares of noise, decreasing.
        """
        told = _told(self._flow, times)
        fitting = _Fitting(self._flow, told, self._targets(told), self._reference.num_runs == 1)
        for _ in (0,) if fitting.at_once else told:
            self._make(fitting, len(told))
            if not fitting.at_once:
                fitting.settle()
        return FlowFit(Multistep(fitting.rows), tuple(times), fitting.errors)

    def at(self, solver: FlowSolver, times: Sequence[float]) -> FlowFit:
        """A solver as it is, at these times: Euler's, say, which is the policy's own."""
        told = _told(self._flow, times)
        run = _Recording(self._flow, told, solver.rows(told))
        self._make(run, len(told))
        kept = _kept(self._flow, self._reference.last)
        distance = run.last[..., kept].double() - self._reference.last[..., kept].double()
        assert isinstance(solver, Solver)
        return FlowFit(solver, tuple(times), distance.flatten(1).square().mean(1).sqrt())

    def search(self, make: Callable[[Sequence[float]], FlowFit], num_steps: int, max_evaluations: int = 30) -> FlowFit:
        """Move one time after the other on `GRID` while that lowers the typical error.

        Args:
            make: `fit`, or `at` with a solver.
            num_steps: Steps K.
            max_evaluations: Largest number of times to try, of K evaluations each.
        """
        tried: dict[tuple[int, ...], FlowFit] = {}

        def error(places: tuple[int, ...]) -> float:
            tried[places] = make([GRID[place] for place in places])
            return tried[places].typical_error

        first = tuple(map(GRID.index, start(num_steps)))
        best, _ = coordinate_search(
            first, len(GRID), error, moves=MOVES, max_evaluations=max_evaluations, move_first=True
        )
        return tried[best]

    def _targets(self, times: Sequence[float]) -> list[Tensor]:
        """The reference's samples where the steps ought to end, on straight lines between those that it has."""
        return [*(self._reference.sample_at(time) for time in times[1:]), self._reference.last]

    def _make(self, run: FlowRun, num_steps: int) -> None:
        interceptor: FlowInterceptor = flow_interceptor(self.host, run, "fitting")
        with flowing(self.host, interceptor), torch.no_grad():
            self._run()
        self.num_evaluations += num_steps


def start(num_steps: int) -> tuple[float, ...]:
    """Times to begin a search with: late ones, as they were best on the policies that we have measured."""
    if num_steps in _STARTS:
        return _STARTS[num_steps]
    spread = (0.9 - 0.85 * step / (num_steps - 1) for step in range(num_steps))
    return tuple(round(20 * time) / 20 for time in spread)


def own_rows(flow: Flow, times: Sequence[float]) -> tuple[Coefficients, ...]:
    """The policy's own solver as coefficients, at these times.

    It is Euler's method, except where the loop mixes the predicted clean actions with its first noise. That noise is
    what the clean actions of the step before leave of the sample.
    """
    if not flow.clean:
        return AdamsBashforth(1).rows(times)
    rows: list[Coefficients] = []
    for here, after in zip(times, (*times[1:], 0.0), strict=True):
        kept = after / here
        rows.append((1 - after, 0.0, kept, -kept * (1 - here), 0.0)[: 5 if rows else 3])
    return tuple(rows)


def _told(flow: Flow, times: Sequence[float]) -> tuple[float, ...]:
    """Shares of noise as the denoiser is told them, where it knows only buckets."""
    return tuple(flow.noise(flow.told(time)) for time in times)


def _kept(flow: Flow, sample: Tensor) -> list[int]:
    """Channels that the solver mixes."""
    return [channel for channel in range(sample.shape[-1]) if channel not in flow.as_predicted]


class _Recording(FlowRun):
    """Keeps the samples of all its runs: at every time, and at the end."""

    def __init__(self, flow: Flow, times: Sequence[float], rows: Sequence[Coefficients]) -> None:
        self._seen: list[list[Tensor]] = [[] for _ in times]
        self._ends: list[Tensor] = []
        super().__init__(flow, times, rows)

    @property
    def num_runs(self) -> int:
        return len(self._ends)

    @property
    def last(self) -> Tensor:
        return torch.cat(self._ends)

    def sample_at(self, noise: float) -> Tensor:
        """The sample at a share of noise, between the two steps around it."""
        place = next((step for step, known in enumerate(self.noise) if known < noise + 1e-6), len(self.noise))
        after = self.last if place == len(self.noise) else torch.cat(self._seen[place])
        low = 0.0 if place == len(self.noise) else self.noise[place]
        if noise - low < 1e-6 or place == 0:
            return after
        return torch.lerp(after, torch.cat(self._seen[place - 1]), (noise - low) / (self.noise[place - 1] - low))

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        self._seen[self._step].append(terms[2].detach())
        after = super().combine(terms)
        if self._step == len(self.rows) - 1:
            self._ends.append(after)
        return after


class _Fitting(FlowRun):
    """Solves for the coefficients of a step before the step needs them, of all observations together.

    Where one run holds them all, that is in the run itself. Otherwise every step takes a pass through all runs, and
    `settle` after it.
    """

    def __init__(self, flow: Flow, times: Sequence[float], targets: Sequence[Tensor], at_once: bool) -> None:
        super().__init__(flow, times, AdamsBashforth(1).rows(times))
        self.at_once, self._targets, self._known = at_once, targets, 0
        self._next_noise = (*self.noise[1:], 0.0)
        self._channels = _kept(flow, targets[0])
        self._collected: list[Sequence[Tensor]] = []
        self.errors = torch.empty(0)

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        if self._step == self._known:
            self._collected.append(terms)
            if self.at_once:
                self.settle()
        return super().combine(terms)

    def settle(self) -> None:
        """Solve for the coefficients of the next step."""
        step, noise = self._known, self._next_noise[self._known]
        columns = [torch.cat(parts)[..., self._channels].double() for parts in zip(*self._collected, strict=True)]
        target = self._targets[step][..., self._channels].double()
        row = solve(columns, target, (1.0 - noise, noise))
        self.rows = (*self.rows[:step], row, *self.rows[step + 1 :])
        reached = torch.stack([c * column for c, column in zip(row, columns, strict=True)]).sum(0)
        self.errors = (reached - target).flatten(1).square().mean(1).sqrt().cpu()
        self._known, self._collected = step + 1, []
