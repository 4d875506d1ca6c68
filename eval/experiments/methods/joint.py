"""Solver, timesteps, update steps and estimator chosen together: ``python -m eval.experiments.methods.joint policy=pusht``.

At each number of sweeps every family of `bac.tuning` has its steps placed by the same search on the same observations,
so fewer steps of DPM-Solver++, first and second order, are rivals at their best. Beside them stand what people use:
evenly spaced fewer steps, and BAC. Errors are measured on other observations against dense DDIM-100 on the same noise
(BAC on DDPM-100: against that); then the best and the rivals are played in closed loop. Every phase resumes.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from tqdm import tqdm

from bac.tuning.bench import Bench
from bac.tuning.search import Family, best_start, families, searched
from eval.setup.candidates import as_cell
from eval.setup.cells import Cell, adaptive, dense, running, together
from eval.compared.comparison import Comparison
from eval.setup.config import CONFIGS, log_to_terminal, settings_of
from eval.measure.action_error import action_chunks, action_error, best_spacing, typical_error
from eval.experiments.methods.joint_report import EAGER, publish
from eval.compared.matching import measure_cells
from eval.experiments.methods.methods import visited
from eval.measure.intervals import mean_score, paired_score_difference, paired_success_difference, success_rate
from eval.play.records import write_json
from eval.play.rollout import Batch
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED
from eval.play.workers import play_units

logger = logging.getLogger(__name__)
BATCH = 16
FAMILIES = {  # of `bac.tuning`, and what they are called in the table; plain reuse loses to them below ten sweeps
    "fewer steps, DPM-Solver++ 1": "DPM-Solver++ 1 tuned",
    "fewer steps, DPM-Solver++": "DPM-Solver++ tuned",
    "fewer steps, fitted multistep": "fitted multistep tuned",
    "together, taylor-1, every 5th step": "cached taylor-1 tuned, every 5th step",
}


@dataclass(frozen=True)
class Found:
    """One method at one budget.

    Attributes:
        cell: How it is run.
        sweeps: Block updates in units of one evaluation.
        fit_error: Typical error on the observations it was chosen with; None if nothing was chosen.
        typical: Typical error on others: the geometric mean of every observation's own.
        error: Action error on others, root mean square.
    """

    cell: Cell
    sweeps: float
    fit_error: float | None
    typical: float
    error: float


class Joint:
    """The experiment on one policy.

    Args:
        comparison: Policy and world.
        options: `joint` of ``configs/eval.yaml``.
    """

    def __init__(self, comparison: Comparison, options: Any) -> None:
        self.comparison, self.options = comparison, options
        self.policy = comparison.loaded.policy
        self.folder = comparison.settings.folder / "joint"
        self.observations = {
            "fit": self._visited("fit", CALIBRATION_SEED, options.num_fit),
            "held out": self._visited("held_out", FIDELITY_SEED, options.num_held_out),
        }
        self.policy.diffusion.use_solver("DDIM", 100)
        batches = {purpose: _batches(batch) for purpose, batch in self.observations.items()}
        self.bench = Bench(self.policy, batches, executor="interpret")

    def found(self) -> list[Found]:
        """Everything at every budget, kept as it is found."""
        path = self.folder / "found.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        for key, make in tqdm(list(self._work()), desc="joint", unit="method"):
            if key not in stored:
                found = make()
                stored[key] = {**asdict(found), "cell": asdict(found.cell)}
                write_json(path, stored)
                logger.info(
                    "%-56s %6.2f sweeps, typical error %.4f, action error %.4f",
                    *(found.cell.name, found.sweeps, found.typical, found.error),
                )
        return [Found(Cell(**row.pop("cell")), **row) for row in (dict(stored[key]) for key, _ in self._work())]

    def _work(self) -> Iterator[tuple[str, Any]]:
        families_by_name = {FAMILIES[f.name]: f for f in families(self.bench) if f.name in FAMILIES}
        for budget in self.options.budgets:
            for solver in ("DDIM", "DPM-Solver++", "UniPC"):
                yield f"{budget} {solver} even", lambda s=solver, b=budget: self._even(s, b)
            for name, family in families_by_name.items():
                yield f"{budget} {name}", lambda n=name, f=family, b=budget: self._tuned(n, f, b)
            cells = [together("unified", budget, solver="DDIM"), adaptive(budget, 5, solver="DDIM")]
            for cell in cells:
                yield f"{budget} {cell.name}", lambda c=cell: self._cell(c, None)
        for cell in (adaptive(10, 5), adaptive(10, 5, solver="DDIM")):
            yield cell.name, lambda c=cell: self._cell(c, None)

    def _even(self, solver: str, budget: int) -> Found:
        fit = self.observations["fit"]
        reference = self._reference("fit", dense(100, "DDIM"))
        spacing, errors = best_spacing(self.policy, solver, budget, fit, reference, distance=typical_error)
        return self._cell(dense(budget, solver, spacing), errors[spacing])

    def _tuned(self, name: str, family: Family, budget: int) -> Found:
        calibration = self.comparison.calibrated.calibration(dense(100, "DDIM"))
        self.policy.diffusion.use_solver("DDIM", 100)
        places = best_start(self.bench, family, calibration, budget)
        candidate = family.make(searched(self.bench, family, places, self.options.evaluations))
        return self._cell(as_cell(candidate, f"{name}, {budget} sweeps"), self.bench.typical_error(candidate))

    def _cell(self, cell: Cell, fit_error: float | None) -> Found:
        """Run a cell on the observations it was not made with."""
        reference = cell.sampler if cell.solver == "DDPM" else dense(100, "DDIM")
        pair = self._chunks(cell, "held out"), self._reference("held out", reference)
        return Found(cell, self.comparison.sweeps(cell), fit_error, typical_error(*pair), action_error(*pair))

    def _chunks(self, cell: Cell, purpose: str) -> torch.Tensor:
        with running(self.policy, cell, self.comparison.schedule(cell)) as policy:
            return action_chunks(policy, self.observations[purpose], num_draws=1)

    def _reference(self, purpose: str, cell: Cell) -> torch.Tensor:
        count = len(next(iter(self.observations[purpose].values())))
        path = self.folder / f"reference-{cell.name}-{purpose.replace(' ', '_')}-{count}.npy"
        if not path.exists():
            np.save(path, self._chunks(cell, purpose).numpy())
        return torch.from_numpy(np.load(path))

    def _visited(self, name: str, first_seed: int, count: int) -> Batch:
        path = self.folder / f"observations-{name}-{count}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            batch = visited(self.comparison.loaded, self.comparison.settings.make_env, first_seed, count)
            np.savez(path, **{key: values.numpy() for key, values in batch.items()})
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    def latencies_ms(self, found: Sequence[Found]) -> dict[str, float]:
        """Median of every method at batch 1, replayed, and of the untouched policy, interleaved [ms]."""
        path = self.folder / "latency.json"
        names = [row.cell.name for row in found]
        stored = json.loads(path.read_text()) if path.exists() else {}
        if {*names, EAGER} - set(stored):
            batch = {key: rows[:1] for key, rows in self.observations["held out"].items()}
            cells = {row.cell: self.comparison.schedule(row.cell) for row in found}
            measured = measure_cells(
                self.comparison.loaded, cells, batch, executor="auto", rounds=self.options.rounds, progress=True
            )
            stored = {cell.name: latency.p50_ms for cell, latency in measured.cells.items()}
            stored[EAGER] = measured.eager.p50_ms
            write_json(path, stored)
        return stored

    def played(self, found: Sequence[Found]) -> list[dict[str, Any]]:
        """Closed loop of dense DDPM-100 and DDIM-100, of the methods named in `options.play`, and as it is tuned."""
        chosen = [row.cell for row in found if row.cell.name in self.options.play]
        cells = [dense(), dense(100, "DDIM"), *chosen, *self.comparison.tuned_cells]
        seeds = tuple(self.comparison.settings.seeds)
        play_units(self.comparison.settings, [self.comparison.unit(cell, seeds) for cell in cells], self.comparison.log)
        return [_closed_loop(self.comparison, cell, cells[0]) for cell in cells]

    def paired(self, found: Sequence[Found]) -> list[dict[str, Any]]:
        """Differences of `options.pairs`, the first's result less the second's, in the same worlds."""
        cells = {row.cell.name: row.cell for row in found}
        unknown = [name for pair in self.options.pairs for name in pair if name not in cells]
        if unknown:
            raise ValueError(f"joint.pairs: {unknown[0]!r} is no method here; there are {', '.join(cells)}")
        return [
            {"name": first, "minus": second, **_difference(self.comparison, cells[first], cells[second])}
            for first, second in self.options.pairs
        ]


def _closed_loop(comparison: Comparison, cell: Cell, reference: Cell) -> dict[str, Any]:
    results = comparison.results(cell)
    success = success_rate(sum(result.success for result in results), len(results))
    score = mean_score([result.score for result in results])
    numbers = {name: [e.value, e.low, e.high] for name, e in (("success", success), ("score", score))}
    return {"name": cell.name, **numbers, **_difference(comparison, cell, reference)}


def _difference(comparison: Comparison, cell: Cell, reference: Cell) -> dict[str, Any]:
    before, after = comparison.results(reference), comparison.results(cell)
    if comparison.settings.judged_by_score:
        found = paired_score_difference([r.score for r in before], [r.score for r in after])
    else:
        found = paired_success_difference([r.success for r in before], [r.success for r in after])
    return {"n": len(after), "difference": [found.value, found.low, found.high]}


def _batches(batch: Batch) -> list[Batch]:
    rows = len(next(iter(batch.values())))
    return [{k: values[first : first + BATCH] for k, values in batch.items()} for first in range(0, rows, BATCH)]


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Search, time, play, write."""
    log_to_terminal()
    torch.set_num_threads(1)
    joint = Joint(Comparison(settings_of(config)), config.joint)
    found = joint.found()
    if config.joint.phase == "search":
        return
    if config.joint.phase == "play":
        joint.played(found)
        return
    evidence = {"closed_loop": joint.played(found), "paired": joint.paired(found)}
    publish(Path(config.joint.results), joint.comparison, found, joint.latencies_ms(found), **evidence)


if __name__ == "__main__":
    main()
