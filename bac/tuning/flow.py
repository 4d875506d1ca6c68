"""Fewer steps for flow-matching policies: own steps at searched times, and fitted ones, each judged by the reference.

The policy's own solver, Euler's, is the rival: at times as well chosen it must still be beaten. A fitted solver of one
step is not offered: in closed loop one step lost .3 of success and more on two of four policies (``results/flow``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

from bac.adapters import find_host
from bac.denoising import Denoising
from bac.solvers import AdamsBashforth
from bac.solvers.flow_fitting import FlowFit, FlowFitter, start
from bac.tuning.batches import merged, num_rows, tiled
from bac.tuning.bench import Bench

EULER = AdamsBashforth(1)
MOST = 30  # times to try in a search
STEPS = range(2, 7)  # to offer; the error hardly falls any more beyond
DEFAULT_STEPS = 3  # without a budget; on three policies no more than .04 of success was lost (results/flow)
DRAWS = 16  # runs to fit on, at least: more were no better where we have measured it
Make = Callable[[Sequence[float]], FlowFit]
OWN, FITTED = "fewer steps, tuned times", "fewer steps, tuned times, fitted"


class FlowWays:
    """Ways to denoise with fewer steps, for one bench.

    Args:
        bench: The bench; the policy's `flow` may be None, and then there are no ways.
        evaluations: Runs that the search may make for each; 0 leaves it out, and the times are those it would begin at.
    """

    def __init__(self, bench: Bench, evaluations: int) -> None:
        self._bench, self._most = bench, min(MOST, evaluations)
        self._found: dict[int, dict[str, Denoising]] = {}

    def __call__(self, num_steps: int) -> Mapping[str, Denoising]:
        """Ways to denoise with so many steps, by name; none if so many are not offered."""
        return self.beside(num_steps) if num_steps in STEPS else {}

    def beside(self, num_steps: int) -> Mapping[str, Denoising]:
        """The same for any number of steps, to compare with."""
        if self._bench.host.flow is None or num_steps < 1:
            return {}
        if num_steps not in self._found:
            makes: dict[str, Make] = {OWN: partial(self._fitter.at, EULER), FITTED: self._fitter.fit}
            self._found[num_steps] = {name: self._searched(make, num_steps) for name, make in makes.items()}
        return self._found[num_steps]

    def _searched(self, make: Make, num_steps: int) -> Denoising:
        found = self._fitter.search(make, num_steps, self._most) if self._most else make(start(num_steps))
        return Denoising(found.solver, found.times)

    @cached_property
    def _fitter(self) -> FlowFitter:
        bench = self._bench
        once = merged(bench.batches["fit"])
        batch = tiled(once, -(-DRAWS // num_rows(once)))  # of few observations, several draws of noise each

        def run() -> None:
            # Find the host again here: its `predict` may be the very method that is now shadowed.
            find_host(bench.policy).predict_seeded(batch, bench.seed)

        return FlowFitter(bench.host, run, own=bench.reference == bench.dense)
