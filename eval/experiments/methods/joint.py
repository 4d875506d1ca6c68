"""Solver, timesteps, update steps and estimator chosen together.

``python -m eval.experiments.methods.joint policy=pusht`` runs families of `bac.tuning` at each number of sweeps. The
same search places the steps of every family on the same observations, so fewer steps of DPM-Solver++, first and second
order, are rivals at their best. The common methods are compared too: evenly spaced fewer steps, and BAC.

Errors are measured on held-out observations against dense DDIM-100 on the same noise (BAC on DDPM-100: against dense
DDPM-100). Then the best methods and their rivals are played in closed loop. Every phase can be resumed.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from tqdm import tqdm

from bac.files import drafted
from bac.tuning.batches import in_parts, num_rows
from bac.tuning.bench import Bench
from bac.tuning.families import Family, best_start, families, searched
from eval.compared.comparison import Comparison
from eval.compared.matching import measure_cells
from eval.experiments.methods.found import Found
from eval.experiments.methods.joint_report import EAGER, publish
from eval.measure.action_error import action_chunks, action_error, best_spacing, reference_of, typical_error
from eval.measure.intervals import mean_score, paired_score_difference, paired_success_difference, success_rate
from eval.play.visit import visited
from eval.play.workers import play_units
from eval.setup.batches import Batch, kept, one_of
from eval.setup.cells import Cell, adaptive, configure, dense, holding, running, together
from eval.setup.config import CONFIGS, log_to_terminal, settings_of
from eval.setup.files import write_json
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED

logger = logging.getLogger(__name__)
BATCH = 16
DDIM = dense(100, "DDIM")  # methods are tuned from this cell and compared with it
FAMILIES = {  # family of `bac.tuning` to name in the table; plain reuse is absent: it loses to these below ten sweeps
    "fewer steps, DPM-Solver++ 1": "DPM-Solver++ 1 tuned",
    "fewer steps, DPM-Solver++": "DPM-Solver++ tuned",
    "fewer steps, fitted multistep": "fitted multistep tuned",
    "together, taylor-1, every 5th step": "cached taylor-1 tuned, every 5th step",
}


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
        configure(self.policy, DDIM)
        self.bench = Bench(self.policy, {purpose: in_parts(b, BATCH) for purpose, b in self.observations.items()})

    def found(self) -> list[Found]:
        """Every method at every budget. Each result is written to disk as soon as it is found."""
        path = self.folder / "found.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        work = dict(self._work())
        for key, make in tqdm(work.items(), desc="joint", unit="method"):
            if key not in stored:
                found = make()
                stored[key] = found.to_document()
                write_json(path, stored)
                logger.info(
                    "%-56s %6.2f sweeps, typical error %.4f, action error %.4f",
                    *(found.cell.name, found.sweeps, found.typical, found.error),
                )
        return [Found.from_document(stored[key]) for key in work]

    def _work(self) -> Iterator[tuple[str, Callable[[], Found]]]:
        """Yield the key of every result, and a function that computes it."""
        families_by_name = {FAMILIES[f.name]: f for f in families(self.bench) if f.name in FAMILIES}
        for budget in self.options.budgets:
            for solver in ("DDIM", "DPM-Solver++", "UniPC"):
                yield f"{budget} {solver} even", partial(self._even, solver, budget)
            for name, family in families_by_name.items():
                yield f"{budget} {name}", partial(self._tuned, name, family, budget)
            for cell in (together("unified", budget, solver="DDIM"), adaptive(budget, 5, solver="DDIM")):
                yield f"{budget} {cell.name}", partial(self._measured, cell)
        for cell in (adaptive(10, 5), adaptive(10, 5, solver="DDIM")):
            yield cell.name, partial(self._measured, cell)

    def _even(self, solver: str, budget: int) -> Found:
        fit = self.observations["fit"]
        reference = self._reference("fit", DDIM)
        spacing, errors = best_spacing(self.policy, solver, budget, fit, reference, distance=typical_error)
        return self._measured(dense(budget, solver, spacing), errors[spacing])

    def _tuned(self, name: str, family: Family, budget: int) -> Found:
        calibration = self.comparison.calibrated.calibration(DDIM)
        configure(self.policy, DDIM)
        places = best_start(self.bench, family, calibration, budget)
        denoising = family.make(searched(self.bench, family, places, self.options.evaluations))
        fit_error = self.bench.typical_error(denoising)
        return self._measured(holding(denoising, f"{name}, {budget} sweeps"), fit_error)

    def _measured(self, cell: Cell, fit_error: float | None = None) -> Found:
        """Measure the errors of a cell on held-out observations."""
        pair = self._chunks(cell, "held out"), self._reference("held out", reference_of(cell) or DDIM)
        return Found(cell, self.comparison.sweeps(cell), fit_error, typical_error(*pair), action_error(*pair))

    def _chunks(self, cell: Cell, purpose: str) -> torch.Tensor:
        with running(self.policy, cell, self.comparison.denoising(cell)) as policy:
            return action_chunks(policy, self.observations[purpose], num_draws=1)

    def _reference(self, purpose: str, cell: Cell) -> torch.Tensor:
        count = num_rows(self.observations[purpose])
        path = self.folder / f"reference-{cell.name}-{purpose.replace(' ', '_')}-{count}.npy"
        if not path.exists():
            with drafted(path) as draft:
                np.save(draft, self._chunks(cell, purpose).numpy())
        return torch.from_numpy(np.load(path))

    def _visited(self, name: str, first_seed: int, count: int) -> Batch:
        loaded, make_env = self.comparison.loaded, self.comparison.settings.make_env
        path = self.folder / f"observations-{name}-{count}.npz"
        return kept(path, lambda: visited(loaded, make_env, first_seed, count))

    def latencies_ms(self, found: Sequence[Found]) -> dict[str, float]:
        """Median latency of every method at batch 1, replayed, and of the unwrapped policy, all interleaved [ms]."""
        path = self.folder / "latency.json"
        names = [row.cell.name for row in found]
        stored = json.loads(path.read_text()) if path.exists() else {}
        if {*names, EAGER} - set(stored):
            cells = {row.cell: self.comparison.denoising(row.cell) for row in found}
            one, rounds = one_of(self.observations["held out"]), self.options.rounds
            measured = measure_cells(self.comparison.loaded, cells, one, replay=True, rounds=rounds, progress=True)
            stored = {cell.name: latency.p50_ms for cell, latency in measured.cells.items()}
            stored[EAGER] = measured.eager.p50_ms
            write_json(path, stored)
        return stored

    def played(self, found: Sequence[Found]) -> list[dict[str, Any]]:
        """Play dense DDPM-100 and DDIM-100, the methods of `options.play`, and the tuned cells in closed loop."""
        chosen = [row.cell for row in found if row.cell.name in self.options.play]
        cells = [dense(), DDIM, *chosen, *self.comparison.tuned_cells]
        seeds = tuple(self.comparison.settings.seeds)
        play_units(self.comparison.settings, [self.comparison.unit(cell, seeds) for cell in cells], self.comparison.log)
        return [_closed_loop(self.comparison, cell, cells[0]) for cell in cells]

    def paired(self, found: Sequence[Found]) -> list[dict[str, Any]]:
        """Paired differences of `options.pairs`: the first method's result less the second's, in the same worlds.

        Raises:
            ValueError: A pair names a method that does not exist.
        """
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


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Search steps, play episodes, time the methods and write the results."""
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
    publish(Path(config.joint.results), joint.comparison.settings.task, found, joint.latencies_ms(found), **evidence)


if __name__ == "__main__":
    main()
