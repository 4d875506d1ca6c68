"""`bac.tune`: from a budget to a way to denoise that was run on this machine and meets it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from bac.calibration import Calibration
from bac.errors import CalibrationError
from bac.recording import calibrate
from bac.tuning.bench import Batch, Bench, rows
from bac.tuning.budget import Budget, BudgetError
from bac.tuning.candidate import Candidate, fewer_of_its_own
from bac.tuning.machine import Machine
from bac.tuning.result import Row, Tuned
from bac.tuning.search import Family, best_start, families, fixed, searched

PESSIMISTIC = 0.75  # of the expected latency
SWEEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50)


def tune(
    policy: Any,
    batches: Iterable[Batch],
    *,
    target_latency_s: float | None = None,
    target_hz: float | None = None,
    max_action_error: float | None = None,
    control_hz: float | None = None,
    n_action_steps: int | None = None,
    margin: float = 0.1,
    evaluations: int = 100,
    sweeps: Sequence[int] = SWEEPS,
    rounds: int = 9,
    executor: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Tuned:
    """Choose solver, timesteps, update steps and estimator together, for a budget, and verify the choice by running it.

    Half of the observations fit, the others only judge. Where the policy's noise scheduler is one of diffusers', fewer
    steps are candidates: of DPM-Solver++, first order and second, and of a multistep solver whose coefficients are
    fitted (`bac.tuning.fitting`), at timesteps placed by the same search as the cache's update steps. Of all that meet
    a latency, the one with the least typical error on the fitting observations is chosen, so there it is never worse
    than tuned fewer steps. Elsewhere (flow matching) the candidates are fewer steps of the policy's own solver, and
    caches on its steps as they are. It takes a few minutes on one core, most of them in the search.

    Args:
        policy: Not wrapped, in eval mode, with the solver and steps that are its reference: a fine, deterministic one
            such as DDIM-100 where it has the choice.
        batches: Observation batches as for `bac.calibrate`; at least two observations.
        target_latency_s: What a chunk may take at the 95th percentile [s].
        target_hz: Chunks per second (inference_hz), the same said otherwise [Hz].
        max_action_error: Instead: the largest action error; the fastest candidate below it is chosen.
        control_hz: Control steps per second [Hz]; with `n_action_steps`, a chunk may take as long as it lasts.
        n_action_steps: Actions executed of a chunk.
        margin: Share of the latency to keep free.
        evaluations: Runs that the search may take for each family of candidates; 0 leaves it out.
        sweeps: Numbers of sweeps at which every family of candidates is looked at.
        rounds: Chunks timed of each finalist.
        executor: What the policy will run with, as for `bac.wrap`.
        seed: Of the noise.
        progress: Show a progress bar.

    Returns:
        The choice, with every candidate that was looked at.

    Raises:
        BudgetError: The budget is not one, or nothing here meets it; the message says what would be reachable.
        CalibrationError: There is one observation only, or the policy is wrapped.
    """
    budget = Budget.of(
        target_latency_s=target_latency_s,
        target_hz=target_hz,
        max_action_error=max_action_error,
        control_hz=control_hz,
        n_action_steps=n_action_steps,
        margin=margin,
    )
    if isinstance(batches, Mapping):
        raise CalibrationError("batches: must be an iterable of observation batches, got one batch; pass [batch]")
    fit, held_out = split(list(batches))
    bench = Bench(policy, {"fit": fit, "held out": held_out}, executor=executor, seed=seed)
    with tqdm(desc="tune", unit="candidate", disable=not progress) as bar:
        return _Tuning(bench, budget, tuple(sweeps), rounds, evaluations, bar).run()


def split(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Every other batch; of a single one every other row.

    Raises:
        CalibrationError: There is one observation only.
    """
    if len(batches) > 1:
        return list(batches[::2]), list(batches[1::2])
    count = len(next(iter(batches[0].values()))) if batches else 0
    if count < 2:
        raise CalibrationError(
            f"batches: must hold at least two observations, one to fit and one to judge, got {count}"
        )
    return [rows(batches[0], slice(0, None, 2))], [rows(batches[0], slice(1, None, 2))]


class _Tuning:
    """One call of `tune`."""

    def __init__(
        self, bench: Bench, budget: Budget, sweeps: tuple[int, ...], rounds: int, evaluations: int, bar: Any
    ) -> None:
        self.bench, self.budget, self.rounds, self.evaluations, self.bar = bench, budget, rounds, evaluations, bar
        self.sweeps = tuple(count for count in sweeps if count < bench.num_steps)
        self.rows: dict[Candidate, Row] = {}
        self.machine = Machine(0.0, 0.0, 0.0)
        self.slower = 1.0  # than expected is the 95th percentile of what was timed, at least

    def run(self) -> Tuned:
        self.machine = self._measured_machine()
        self._check_reachable()
        own = calibrate(self.bench.policy, self.bench.batches["fit"], progress=False)
        chosen = self._chosen(own)
        if self._was_pessimistic(chosen):
            chosen = self._chosen(own)
        signed = replace(chosen, candidate=chosen.candidate.signed(self.bench.policy))
        found = (signed if row is chosen else row for row in self.rows.values())
        return Tuned(signed, tuple(sorted(found, key=lambda row: row.p50_s)), self.budget, self.machine)

    def _chosen(self, calibration: Calibration) -> Row:
        """The best that is in time; if what was searched for is late, there is a search for what is not."""
        self._look(calibration)
        found = self._verified(self._searched(calibration))
        if self.slower > 1.0 and self.budget.action_error is None:
            found = self._verified(self._searched(calibration))
        if found is None:
            raise BudgetError(self._refusal())
        return found

    def _was_pessimistic(self, chosen: Row) -> bool:
        """Whether the choice took much less time than expected, and the latency buys more: the machine was busy before.

        What is expected of the others is then put right.
        """
        ratio = chosen.p50_s / self.machine.seconds(chosen.candidate)
        if self.budget.latency_s is None or ratio > PESSIMISTIC:
            return False
        self.machine, self.slower = self.machine.times(ratio), 1.0
        self.rows = {
            candidate: row if row.p95_s is not None else replace(row, p50_s=self.machine.seconds(candidate))
            for candidate, row in self.rows.items()
        }
        return True

    def _measured_machine(self) -> Machine:
        """Time few and more sweeps of some families, and the policy as it is only where it has no fewer steps."""
        few, more = max(1, self.bench.num_steps // 20), max(2, self.bench.num_steps // 5)
        kinds = families(self.bench)
        probes = [kinds[0].make(range(count)) for count in (few, more)] + [kinds[-2].make(range(few))]
        if not self.bench.solvers:
            probes += [self.bench.dense, *([fewer_of_its_own(few)] if self.bench.takes_fewer_steps else [])]
        return Machine.fit(probes, [latency.p50_s for latency in self.bench.latencies(probes, self.rounds)])

    def _check_reachable(self) -> None:
        steps = 1 if self.bench.solvers or self.bench.takes_fewer_steps else self.bench.num_steps
        least = self.machine.fixed_s + self.machine.per_step_s * steps + self.machine.per_sweep_s
        if self.budget.limit_s < least:
            raise BudgetError(
                f"{self.budget}: not reachable on this machine. One update of every block takes {1e3 * least:.1f} ms "
                f"({1 / least:.1f} chunks per second); {self.machine}. Ask for at least "
                f"target_latency_s={1.2 * least / (1 - self.budget.margin):.4f}, or execute more actions of each chunk"
            )

    def _look(self, calibration: Calibration) -> None:
        """Run every family at every number of sweeps that may meet the budget, from its best starting place."""
        for count in self.sweeps:
            candidates = fixed(self.bench, calibration, count)
            for family in families(self.bench):
                if self._affordable(family.of_cost(count)):
                    candidates.append(family.make(best_start(self.bench, family, calibration, count)))
            for candidate in filter(self._affordable, candidates):
                self._add(candidate)
        if self._affordable(self.bench.dense):
            self._add(self.bench.dense)

    def _searched(self, calibration: Calibration) -> list[Row]:
        """Move the steps of every family at the sweeps its budget buys; the best rows first."""
        enough = self.budget.action_error
        for family in families(self.bench) if self.evaluations else ():
            for count in self._counts(family):
                places = best_start(self.bench, family, calibration, count)
                row = self._add(family.make(searched(self.bench, family, places, self.evaluations)))
                if enough is not None and row.fit_error <= enough:
                    break
        if enough is None:
            return sorted(self.rows.values(), key=lambda row: row.typical_error)
        return sorted((row for row in self.rows.values() if row.fit_error <= enough), key=lambda row: row.p50_s)

    def _counts(self, family: Family) -> list[int]:
        """Numbers of sweeps to search at: all that the latency buys, or more and more until the error is met."""
        if self.budget.action_error is not None:
            return list(self.sweeps)
        bought = [n for n in range(1, self.bench.num_steps) if self._affordable(family.of_cost(n), self.slower)]
        return bought[-1:]

    def _verified(self, finalists: Sequence[Row]) -> Row | None:
        """The first finalist that, timed and run on the other observations, meets the budget."""
        for row in finalists:
            if row.p95_s is None:
                if self.slower * row.p50_s > self.budget.limit_s:
                    continue  # as much slower than expected as one before it, it would be late too
                row = self._timed(row)
            if self._meets(row):
                return row
        return None

    def _timed(self, row: Row) -> Row:
        """Timed, and run on the other observations."""
        (latency,) = self.bench.latencies([row.candidate], self.rounds)
        if latency.p95_s > self.budget.limit_s:
            self.slower = max(self.slower, latency.p95_s / row.p50_s)
        error = self.bench.error(row.candidate, "held out")
        self.rows[row.candidate] = replace(row, error=error, p50_s=latency.p50_s, p95_s=latency.p95_s)
        return self.rows[row.candidate]

    def _meets(self, row: Row) -> bool:
        assert row.p95_s is not None and row.error is not None  # timed, and run
        return row.p95_s <= self.budget.limit_s and row.error <= (self.budget.action_error or float("inf"))

    def _refusal(self) -> str:
        timed = [row.p95_s for row in self.rows.values() if row.p95_s is not None]
        fastest = f"the fastest that was timed took {1e3 * min(timed):.1f} ms (p95)" if timed else self.machine
        least = min((row.fit_error for row in self.rows.values()), default=float("nan"))
        return (
            f"{self.budget}: none of {len(self.rows)} candidates meets it on this machine; {fastest}; the least action "
            f"error is {least:.4f}. Allow more time or a larger error, keep less free with margin=, or look at more "
            "with sweeps= and evaluations="
        )

    def _affordable(self, candidate: Candidate, slower: float = 1.0) -> bool:
        return slower * self.machine.seconds(candidate) <= self.budget.limit_s

    def _add(self, candidate: Candidate) -> Row:
        if candidate not in self.rows:
            errors = self.bench.error(candidate), self.bench.typical_error(candidate)
            self.rows[candidate] = Row(candidate, *errors, p50_s=self.machine.seconds(candidate))
            self.bar.update()
        return self.rows[candidate]
