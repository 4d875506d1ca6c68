"""`bac.tune`: from a budget to a way to denoise that was run on this machine and meets it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from bac.caching.calibration import Calibration
from bac.denoising import Denoising
from bac.errors import CalibrationError
from bac.plan.replay import Replay
from bac.recording import calibrate
from bac.tuning.batches import Batch, num_rows, rows_of
from bac.tuning.bench import Bench
from bac.tuning.budget import Budget, BudgetError
from bac.tuning.families import Family, best_start, families, fixed, searched
from bac.tuning.machine import Machine
from bac.tuning.result import Trial, Tuned
from bac.version import __version__

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
    replay: bool | Replay = True,
    seed: int = 0,
    progress: bool = True,
) -> Tuned:
    """Choose solver, timesteps, update steps and estimator together, for a budget, and verify the choice by running it.

    Half of the observations fit, the others only judge. Where the policy's noise scheduler is one of diffusers', fewer
    steps are candidates: of DPM-Solver++, first order and second, and of a multistep solver whose coefficients are
    fitted (`bac.solvers.fitting`), at timesteps placed by the same search as the cache's update steps. Of all that meet
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
        replay: What the policy will run with, as for `bac.wrap`.
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
    bench = Bench(policy, {"fit": fit, "held out": held_out}, replay=replay, seed=seed)
    with tqdm(desc="tune", unit="candidate", disable=not progress) as bar:
        return _Tuning(bench, budget, tuple(sweeps), rounds, evaluations, bar).run()


def split(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Every other batch; of a single one every other row.

    Raises:
        CalibrationError: There is one observation only.
    """
    if len(batches) > 1:
        return list(batches[::2]), list(batches[1::2])
    count = num_rows(batches[0]) if batches else 0
    if count < 2:
        raise CalibrationError(
            f"batches: must hold at least two observations, one to fit and one to judge, got {count}"
        )
    return [rows_of(batches[0], slice(0, None, 2))], [rows_of(batches[0], slice(1, None, 2))]


class _Tuning:
    """One call of `tune`."""

    def __init__(
        self, bench: Bench, budget: Budget, sweeps: tuple[int, ...], rounds: int, evaluations: int, bar: Any
    ) -> None:
        self.bench, self.budget, self.rounds, self.evaluations, self.bar = bench, budget, rounds, evaluations, bar
        self.sweeps = tuple(count for count in sweeps if count < bench.num_steps)
        self.trials: dict[Denoising, Trial] = {}
        self.machine = Machine(0.0, 0.0, 0.0)
        self.slower = 1.0  # than expected is the 95th percentile of what was timed, at least

    def run(self) -> Tuned:
        self.machine = self._measured_machine()
        self._check_reachable()
        own = calibrate(self.bench.policy, self.bench.batches["fit"], progress=False)
        chosen = self._chosen(own)
        if self._was_pessimistic(chosen):
            chosen = self._chosen(own)
        made_for = replace(self.bench.host.fingerprint(), version=__version__)
        signed = replace(chosen, denoising=replace(chosen.denoising, fingerprint=made_for))
        found = (signed if trial is chosen else trial for trial in self.trials.values())
        return Tuned(signed, tuple(sorted(found, key=lambda trial: trial.p50_s)), self.budget, self.machine)

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
        """Whether the choice took much less time than expected, and the latency buys more: the machine was busy before.

        What is expected of the others is then put right.
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
        """Time few and more sweeps of some families, and the policy as it is only where it has no fewer steps."""
        few, more = max(1, self.bench.num_steps // 20), max(2, self.bench.num_steps // 5)
        kinds = families(self.bench)
        probes = [kinds[0].make(range(count)) for count in (few, more)] + [kinds[-2].make(range(few))]
        if not self.bench.solvers:
            probes += [self.bench.dense, *([Denoising(num_steps=few)] if self.bench.takes_fewer_steps else [])]
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
            for family in families(self.bench):
                if self._affordable(family.of_cost(count)):
                    self._add(family.name, family.make(best_start(self.bench, family, calibration, count)))
            for name, way in fixed(self.bench, calibration, count):
                if self._affordable(way):
                    self._add(name, way)
        if self._affordable(self.bench.dense):
            self._add("dense", self.bench.dense)

    def _searched(self, calibration: Calibration) -> list[Trial]:
        """Move the steps of every family at the sweeps its budget buys; the best rows first."""
        enough = self.budget.action_error
        for family in families(self.bench) if self.evaluations else ():
            for count in self._counts(family):
                places = best_start(self.bench, family, calibration, count)
                trial = self._add(family.name, family.make(searched(self.bench, family, places, self.evaluations)))
                if enough is not None and trial.fit_error <= enough:
                    break
        if enough is None:
            return sorted(self.trials.values(), key=lambda trial: trial.typical_error)
        return sorted(
            (trial for trial in self.trials.values() if trial.fit_error <= enough), key=lambda trial: trial.p50_s
        )

    def _counts(self, family: Family) -> list[int]:
        """Numbers of sweeps to search at: all that the latency buys, or more and more until the error is met."""
        if self.budget.action_error is not None:
            return list(self.sweeps)
        bought = [n for n in range(1, self.bench.num_steps) if self._affordable(family.of_cost(n), self.slower)]
        return bought[-1:]

    def _verified(self, finalists: Sequence[Trial]) -> Trial | None:
        """The first finalist that, timed and run on the other observations, meets the budget."""
        for trial in finalists:
            if trial.p95_s is None:
                if self.slower * trial.p50_s > self.budget.limit_s:
                    continue  # as much slower than expected as one before it, it would be late too
                trial = self._timed(trial)
            if self._meets(trial):
                return trial
        return None

    def _timed(self, trial: Trial) -> Trial:
        """Timed, and run on the other observations."""
        (latency,) = self.bench.latencies([trial.denoising], self.rounds)
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
            f"error is {least:.4f}. Allow more time or a larger error, keep less free with margin=, or look at more "
            "with sweeps= and evaluations="
        )

    def _affordable(self, way: Denoising, slower: float = 1.0) -> bool:
        return slower * self.machine.seconds(way) <= self.budget.limit_s

    def _add(self, family: str, way: Denoising) -> Trial:
        """Run a way that was not run before."""
        if way not in self.trials:
            errors = self.bench.error(way), self.bench.typical_error(way)
            self.trials[way] = Trial(family, way, *errors, p50_s=self.machine.seconds(way))
            self.bar.update()
        return self.trials[way]
