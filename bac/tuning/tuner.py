"""From a budget to a way to denoise that meets it, as measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bac.caching.calibration import Calibration
from bac.denoising import Denoising
from bac.measured import Measured
from bac.recording import calibrate
from bac.tuning.batches import notes_of_few
from bac.tuning.bench import Bench
from bac.tuning.budget import Budget, BudgetError
from bac.tuning.coarser import in_coarser
from bac.tuning.distance import Distance
from bac.tuning.families import Family, best_start, families, fixed, searched
from bac.tuning.flow import FITTED, FlowWays
from bac.tuning.machine import Machine
from bac.tuning.result import Tuned
from bac.tuning.stopwatch import Stopwatch
from bac.tuning.trial import DENSE, Trial
from bac.version import __version__

PESSIMISTIC = 0.75  # of the expected latency; a choice below it shows that the expectation was too high
FINALISTS = 8  # looked at a second time, for distributions
NEAREST = 4  # numbers of sweeps to try for distributions: the largest that the budget allows


class Tuner:
    """One call of `bac.tune`: looks at families, searches the best, times and verifies until one meets the budget."""

    def __init__(
        self,
        bench: Bench,
        budget: Budget,
        sweeps: tuple[int, ...],
        rounds: int,
        evaluations: int,
        precisions: tuple[str, ...],
        bar: Any,
    ) -> None:
        self.bench, self.budget, self.rounds, self.evaluations, self.bar = bench, budget, rounds, evaluations, bar
        self.precisions = precisions
        wanted = sweeps if budget.num_steps is None else range(budget.num_steps - 1, budget.num_steps + 2)
        self.least_steps = 1 if bench.host.flow is None else 2  # one step of a flow is far worse than two
        self.sweeps = tuple(count for count in wanted if self.least_steps <= count < bench.num_steps)
        self.flow_ways = FlowWays(bench, evaluations)
        self.stopwatch = Stopwatch(bench, rounds)
        self.trials: dict[Denoising, Trial] = {}
        self.machine = Machine(0.0, 0.0, 0.0)
        self.deterministic: Distance | None = None  # of the deterministic path, if the policy draws noise
        self.slower = 1.0  # largest p95 / expected latency among the finalists that were too slow

    def run(self) -> Tuned:
        self.machine = self._measured_machine()
        self._check_reachable()
        own = calibrate(self.bench.policy, self.bench.batches["fit"], progress=False)
        chosen = self._chosen(own)
        if self._was_pessimistic(chosen):
            chosen = self._chosen(own)
        chosen = self._in_coarser(chosen)
        self._time_beside(chosen)
        made_for = replace(self.bench.host.fingerprint(), version=__version__)
        measured = self._measured(chosen)
        signed = replace(chosen, denoising=replace(chosen.denoising, fingerprint=made_for, measured=measured))
        found = (signed if trial is chosen else trial for trial in self.trials.values())
        ordered, dense = tuple(sorted(found, key=lambda trial: trial.p50_s)), self.trials.get(self.bench.dense)
        return Tuned(
            signed,
            ordered,
            self.budget,
            self.machine,
            self.bench.quantity,
            self.deterministic,
            dense_s=self.machine.seconds(self.bench.dense) if dense is None else dense.p50_s,
            own_from_flow=self.bench.own_from_flow(),
            own_typical=self.bench.own_from_flow(typically=True),
            reference=self.bench.reference_kind,
            neighbours=self._neighbours(chosen),
            notes=(*self.stopwatch.notes, *notes_of_few(self.bench.batches["fit"])),
        )

    def _in_coarser(self, chosen: Trial) -> Trial:
        """The choice, or itself in a coarser precision if that is faster and keeps the error."""
        if not self.precisions:
            return chosen
        found = in_coarser(self.bench, chosen, self.precisions, self.rounds)
        self.trials.update({trial.denoising: trial for trial in found})
        enough = self.budget.action_error or 0.0
        near = [trial for trial in found[1:] if trial.fit_error <= enough and self._meets(trial)]
        return min([found[0], *near], key=lambda trial: trial.p50_s)

    def _time_beside(self, chosen: Trial) -> None:
        """Time what stands beside a choice of so many fitted steps: the policy itself, one step less, one more."""
        if self.budget.num_steps is None:
            return
        for trial in list(self.trials.values()):
            if trial.p95_s is None and (trial.family in (chosen.family, DENSE)):
                self._timed(trial)

    def _neighbours(self, chosen: Trial) -> tuple[Trial, ...]:
        """The choice's family with one step less and one more, whatever they cost."""
        steps = chosen.denoising.num_steps or 0
        found = (self.flow_ways.beside(count).get(chosen.family) for count in (steps - 1, steps + 1))
        return tuple(self.trials.get(way) or self._trial(chosen.family, way) for way in found if way is not None)

    def _chosen(self, calibration: Calibration) -> Trial:
        """Return the best trial within the budget. If the searched one misses it, search again at fewer sweeps."""
        self._look(calibration)
        found = self._verified(self._searched(calibration))
        if self.slower > 1.0 and self.budget.action_error is None:
            found = self._verified(self._searched(calibration))
        if found is None:
            raise BudgetError(self._refusal())
        return found

    def _was_pessimistic(self, chosen: Trial) -> bool:
        """Whether the choice was much faster than expected, so that the budget allows more sweeps.

        That happens if the machine was busy when the cost model was fitted. It then corrects the model and the expected
        latency of all trials.
        """
        ratio = chosen.p50_s / self.machine.seconds(chosen.denoising)
        if self.budget.latency_s is None or ratio > PESSIMISTIC:
            return False
        self.machine, self.slower = self.machine.times(ratio), 1.0
        self.trials = {
            way: trial if trial.p95_s is not None else replace(trial, p50_s=self.machine.seconds(way))
            for way, trial in self.trials.items()
        }
        return True

    def _measured_machine(self) -> Machine:
        """Fit the cost model to few and more sweeps of some families.

        The dense run, which is slow, is timed only if the policy takes no solvers.
        """
        few, more = max(1, self.bench.num_steps // 20), max(2, self.bench.num_steps // 5)
        kinds = families(self.bench)
        probes = [kinds[0].make(range(count)) for count in (few, more)] + [kinds[-2].make(range(few))]
        if not self.bench.solvers:
            probes += [self.bench.dense, *([Denoising(num_steps=few)] if self.bench.takes_fewer_steps else [])]
        return Machine.fit(probes, [latency.p50_s for latency in self.bench.latencies(probes, self.rounds)])

    def _check_reachable(self) -> None:
        takes_fewer = self.bench.solvers or self.bench.takes_fewer_steps
        steps = self.least_steps if takes_fewer else self.bench.num_steps
        least = self.machine.fixed_s + self.machine.per_step_s * steps + self.machine.per_sweep_s
        if self.budget.limit_s < least:
            raise BudgetError(
                f"{self.budget}: not reachable on this machine. One update of every block takes {1e3 * least:.1f} ms "
                f"({1 / least:.1f} chunks per second); {self.machine}. Ask for at least "
                f"target_latency_s={1.2 * least / (1 - self.budget.margin):.4f}, or execute more actions of each chunk"
            )

    def _look(self, calibration: Calibration) -> None:
        """Run every family at every number of sweeps within the budget, at its best starting place."""
        for count in self._looked_at():
            for family in families(self.bench):
                if self._affordable(family.of_cost(count)):
                    self._add(family.name, family.make(best_start(self.bench, family, calibration, count)))
            for name, way in fixed(self.bench, calibration, count):
                if self._affordable(way):
                    self._add(name, way)
            if self._affordable(Denoising(num_steps=count)):
                for name, way in self.flow_ways(count).items():
                    self._add(name, way)
        if self._affordable(self.bench.dense):
            self._add(DENSE, self.bench.dense)

    def _searched(self, calibration: Calibration) -> list[Trial]:
        """Search the steps of every family at the sweeps that the budget allows. Returns trials, the best first."""
        enough = self.budget.action_error
        for family in self._promising() if self.evaluations and self.budget.num_steps is None else ():
            for count in self._counts(family):
                places = best_start(self.bench, family, calibration, count)
                trial = self._add(family.name, family.make(searched(self.bench, family, places, self.evaluations)))
                if enough is not None and trial.fit_error <= enough:
                    break
        ordered = self._ordered()
        return self._looked_at_again(ordered) if enough is None else ordered

    def _looked_at_again(self, ordered: list[Trial]) -> list[Trial]:
        """The best trials in the order of a second look, with other noise.

        A search among distances that chance moves finds what chance favoured: on one policy its choice seemed .02
        nearer than it proved to be (results/reference).
        """
        if not self.bench.draws_noise:
            return ordered
        best = ordered[:FINALISTS]
        again = {trial.denoising: self.bench.second_look(trial.denoising) for trial in best}
        return [*sorted(best, key=lambda trial: again[trial.denoising]), *ordered[FINALISTS:]]

    def _looked_at(self) -> Sequence[int]:
        """Numbers of sweeps to try. Chunks by the dozen cost time, so for distributions only the most affordable."""
        if not self.bench.draws_noise or self.budget.action_error is not None:
            return self.sweeps
        cheapest = families(self.bench)[0]
        return [count for count in self.sweeps if self._affordable(cheapest.of_cost(count))][-NEAREST:]

    def _promising(self) -> Sequence[Family]:
        """The families to search: all, or for distributions the two with the best trials so far."""
        kinds = families(self.bench)
        if not self.bench.draws_noise:
            return kinds
        ranks: dict[str, int] = {}
        for rank, trial in enumerate(self._ordered()):
            ranks.setdefault(trial.family, rank)
        return sorted((kind for kind in kinds if kind.name in ranks), key=lambda kind: ranks[kind.name])[:2]

    def _ordered(self) -> list[Trial]:
        """Trials, the best first: the nearest to the reference, or the fastest that are near enough."""
        enough, steps = self.budget.action_error, self.budget.num_steps
        if steps is not None:
            return [t for t in self.trials.values() if t.family == FITTED and t.denoising.num_steps == steps]
        if enough is None:
            return sorted(self.trials.values(), key=lambda trial: trial.typical_error)
        near = (trial for trial in self.trials.values() if trial.fit_error <= enough)
        return sorted(near, key=lambda trial: trial.p50_s)

    def _measured(self, chosen: Trial) -> Measured:
        """Measure the choice on the observations that chose nothing, and the deterministic path beside it."""
        if self.bench.draws_noise:
            self.deterministic = self.bench.distance(self.bench.deterministic)
        return self.bench.measured(chosen.denoising)

    def _counts(self, family: Family) -> list[int]:
        """Numbers of sweeps to search at: the most that the latency allows, or rising ones until the error is met."""
        if self.budget.action_error is not None:
            return list(self.sweeps)
        bought = [n for n in range(1, self.bench.num_steps) if self._affordable(family.of_cost(n), self.slower)]
        return bought[-1:]

    def _verified(self, finalists: Sequence[Trial]) -> Trial | None:
        """The first finalist that meets the budget when timed and run on the held-out observations."""
        for trial in finalists:
            if trial.p95_s is None:
                if self.slower * trial.p50_s > self.budget.limit_s:
                    continue  # it would miss the budget too, if as much slower than expected as an earlier one
                trial = self._timed(trial)
            if self._meets(trial):
                return trial
        return None

    def _timed(self, trial: Trial) -> Trial:
        """Time a trial, and run it on the held-out observations."""
        latency = self.stopwatch.time(trial.denoising, trial.p50_s, self.budget.limit_s)
        if latency.p95_s > self.budget.limit_s:
            self.slower = max(self.slower, latency.p95_s / trial.p50_s)
        error = self.bench.error(trial.denoising, "held out")
        self.trials[trial.denoising] = replace(trial, error=error, p50_s=latency.p50_s, p95_s=latency.p95_s)
        return self.trials[trial.denoising]

    def _meets(self, trial: Trial) -> bool:
        assert trial.p95_s is not None and trial.error is not None  # timed, and run
        return trial.p95_s <= self.budget.limit_s and trial.error <= (self.budget.action_error or float("inf"))

    def _refusal(self) -> str:
        timed = [trial.p95_s for trial in self.trials.values() if trial.p95_s is not None]
        fastest = f"the fastest that was timed took {1e3 * min(timed):.1f} ms (p95)" if timed else self.machine
        least = min((trial.fit_error for trial in self.trials.values()), default=float("nan"))
        return (
            f"{self.budget}: none of {len(self.trials)} trials meets it on this machine; {fastest}; the least action "
            f"error is {least:.4f}. Allow more time or a larger error, keep less free with margin=, or try more "
            "with sweeps= and evaluations="
        )

    def _affordable(self, way: Denoising, slower: float = 1.0) -> bool:
        return slower * self.machine.seconds(way) <= self.budget.limit_s

    def _add(self, family: str, way: Denoising) -> Trial:
        """Run a way to denoise, unless it was run before. Returns its trial."""
        if way not in self.trials:
            self.trials[way] = self._trial(family, way)
            self.bar.update()
        return self.trials[way]

    def _trial(self, family: str, way: Denoising) -> Trial:
        errors = self.bench.error(way), self.bench.typical_error(way)
        return Trial(family, way, *errors, p50_s=self.machine.seconds(way), other_error=self.bench.other_error(way))
