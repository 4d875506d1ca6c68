"""Fits the coefficients of a multistep solver in closed form, in one run.

A dense run is recorded: its sample at every timestep. Then the few steps are run on the same noise. Each step solves
for the coefficients that bring its result closest to the dense run's sample at the next timestep. The terms contain the
errors of earlier steps, so the fit also corrects those. It takes as many evaluations of the denoiser as the few steps
themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bac.adapters.host import Host
from bac.caching.interceptors.patch import Interceptor, put_on, take_off
from bac.errors import ScheduleError
from bac.solvers.interceptor import scheduler_swaps, swapped
from bac.solvers.multistep import Coefficients, Multistep, MultistepScheduler, level
from bac.solvers.solver import Solver

PASSES = 2
TINY = 1e-16  # added to a squared distance, so that a distance of zero has an inverse
RIDGE = 1e-5  # of the mean square of a clean action; pulls towards DDIM
END = -1  # key of the sample after the last timestep
Run = Callable[[], object]


class Fitter:
    """Fits solvers to one policy.

    Args:
        host: The policy; its sampler takes solvers.
        run: Makes one denoising run of all observations to fit on, always on the same noise.
        states: Samples of the dense run by timestep, and at `END`, `[B, ...]` each; see `recorded`.
    """

    def __init__(self, host: Host, run: Run, states: dict[int, Tensor]) -> None:
        self.host, self.run, self.states = host, run, states

    def __call__(self, timesteps: Sequence[int]) -> Multistep:
        """Fit the solver at these timesteps.

        Args:
            timesteps: Decreasing, and among those of the dense run.

        Raises:
            ScheduleError: `timesteps` do not decrease, or one is not of the dense run.
        """
        known = [int(timestep) for timestep in timesteps if int(timestep) in self.states]
        if len(known) < len(timesteps) or known != sorted(set(known), reverse=True):
            raise ScheduleError(
                f"timesteps: must decrease, and be some of the {len(self.states) - 1} of the recorded run, got "
                f"{tuple(timesteps)}"
            )
        fitting = _Fitting(self.host.sampler_owner.noise_scheduler, timesteps, self.states)
        with swapped(self.host, scheduler_swaps(self.host, fitting, len(timesteps))):
            self.run()
        return Multistep(tuple(fitting.coefficients))


class Recorder(Interceptor):
    """Intercepts a noise scheduler's ``step``: keeps what it gets, and the result of the last step.

    Attributes:
        states: Samples by timestep, and at `END`, `[B, ..., Da]` each.
        outputs: The denoiser's outputs by timestep, of the same shape.
    """

    def __init__(self) -> None:
        self.states: dict[int, Tensor] = {}
        self.outputs: dict[int, Tensor] = {}

    def __call__(self, output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.states[int(timestep)], self.outputs[int(timestep)] = sample.detach(), output.detach()
        stepped = self.original(output, timestep, sample, *args, **kwargs)
        self.states[END] = stepped[0].detach()
        return stepped


@contextmanager
def recorded(host: Host, solver: Solver | None = None, timesteps: Sequence[float] = ()) -> Iterator[dict[int, Tensor]]:
    """Record the samples of the runs within the context, by timestep; the final sample is at `END`.

    Arguments are those of `recording`.
    """
    with recording(host, solver, timesteps) as recorder:
        yield recorder.states


@contextmanager
def recording(host: Host, solver: Solver | None = None, timesteps: Sequence[float] = ()) -> Iterator[Recorder]:
    """Record samples and the denoiser's outputs of the runs within the context; a later run overwrites an earlier one.

    Args:
        host: The policy; its sampler takes solvers.
        solver: Solver of the runs; None for the policy's own solver and timesteps.
        timesteps: The solver's timesteps, decreasing.
    """
    trained, recorder = host.sampler_owner.noise_scheduler, Recorder()
    scheduler = trained if solver is None else solver.scheduler(trained, timesteps)
    swaps = () if solver is None else scheduler_swaps(host, scheduler, len(timesteps))
    put_on(scheduler, "step", recorder)
    try:
        with swapped(host, swaps):
            yield recorder
    finally:
        take_off(scheduler, "step")


class _Fitting(MultistepScheduler):
    """Solves for the coefficients of a step just before the step needs them."""

    def __init__(self, trained: Any, timesteps: Sequence[int], states: dict[int, Tensor]) -> None:
        self._targets = [states[int(timestep)] for timestep in (*timesteps[1:], END)]
        self._next = [level(float(trained.alphas_cumprod[int(timestep)])) for timestep in timesteps[1:]] + [(1.0, 0.0)]
        super().__init__(trained, timesteps, [])

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.coefficients: list[Coefficients] = []

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        self.coefficients.append(solve(terms, self._targets[self._step], self._next[self._step]))
        return super().combine(terms)


def solve(terms: Sequence[Tensor], target: Tensor, ddim: tuple[float, float], ridge: float = RIDGE) -> Coefficients:
    """Coefficients of the sum of terms with the least distance to the target, summed over the observations.

    It minimises the distance, not its square: in a least-squares fit, the few observations at which a run forks would
    decide. The method is iteratively reweighted least squares, in two passes.

    Args:
        terms: `[B, ...]` each, clean actions and noise first.
        target: The target, of the same shape.
        ddim: Shares of clean actions and of noise at the next timestep. The ridge penalty pulls the coefficients
            towards them.
        ridge: Weight of the penalty, in units of the mean square of a term of size 1.
    """
    columns = torch.stack([term.double().flatten(1) for term in terms], dim=-1)  # [B, N, terms]
    wanted = target.double().flatten(1)
    prior = torch.zeros(len(terms), dtype=torch.float64, device=columns.device)
    prior[0], prior[1] = ddim
    pull = ridge * wanted.numel() * torch.eye(len(terms)).to(prior)
    importance, found = torch.ones(len(wanted)).to(prior), prior
    for _ in range(PASSES):
        scaled = importance[:, None, None] * columns
        products = torch.einsum("bni,bnj->ij", scaled, columns) + pull
        found = prior + torch.linalg.solve(products, torch.einsum("bni,bn->i", scaled, wanted - columns @ prior))
        distance = (columns @ found - wanted).square().mean(1).add(TINY).sqrt()
        importance = (1 / distance) / (1 / distance).mean()
    return tuple(found.tolist())
