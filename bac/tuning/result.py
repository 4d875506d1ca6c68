"""The result of tuning: the choice and all trials."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from bac.denoising import Denoising
from bac.files import write_json
from bac.precision import AS_LOADED
from bac.tuning import report
from bac.tuning.budget import Budget
from bac.tuning.distance import Distance
from bac.tuning.machine import Machine
from bac.tuning.reference import ReferenceName
from bac.tuning.trial import DENSE, Trial


@dataclass(frozen=True)
class Tuned:
    """The chosen way to denoise, with all trials. It prints as a report.

    Attributes:
        chosen: The trial that meets the budget.
        trials: All trials in order of latency, `chosen` included.
        budget: The budget.
        machine: The cost model of this machine.
        quantity: What the errors are: ``action error``, or ``energy distance`` if the policy draws noise.
        deterministic: Distance of the deterministic path to such a policy.
        dense_s: Median latency of the policy as it is [s], measured or as the cost model says.
        own_from_flow: Action error of a flow-matching policy's own steps to a fine run, on the fitting observations.
        own_typical: The same as a geometric mean over observations.
        reference: What errors of a flow-matching policy are to: ``own`` or ``flow``.
        neighbours: The choice's family with one step less and one more, on a flow-matching policy.
        notes: What happened while tuning, in sentences: timings that were repeated.
    """

    chosen: Trial
    trials: tuple[Trial, ...]
    budget: Budget
    machine: Machine
    quantity: str = "action error"
    deterministic: Distance | None = None
    dense_s: float | None = None
    own_from_flow: float | None = None
    own_typical: float | None = None
    reference: ReferenceName = "own"
    neighbours: tuple[Trial, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def denoising(self) -> Denoising:
        """The chosen way to denoise, for `bac.wrap` and ``tuned.denoising.save("bac.json")``."""
        return self.chosen.denoising

    @property
    def front(self) -> tuple[Trial, ...]:
        """Trials that no other beats in latency and error, in order of latency."""
        best: list[Trial] = []
        for trial in sorted(self.trials, key=lambda trial: (trial.p50_s, trial.typical_error)):
            if not best or trial.typical_error < best[-1].typical_error:
                best.append(trial)
        return tuple(best)

    def __str__(self) -> str:
        rows = report.table(self.trials, self.chosen, self.front, self.dense_s, self.quantity, self.reference)
        return "\n".join([str(self.budget), str(self.machine), *rows, *self._verdict(), *self.notes])

    def _verdict(self) -> list[str]:
        """How far the choice is from the policy, in words."""
        lines = []
        if self.deterministic is not None:
            lines.append(f"deterministic path at all timesteps: energy distance {self.deterministic}")
        if self.chosen.family == DENSE and self.denoising.precision == AS_LOADED:
            lines.append("the choice is the policy's own run: no action changes")
        measured = self.denoising.measured
        if measured is not None:
            lines.append(f"choice: {measured}")
            lines += [f"WARNING: {measured.warning}"] if measured.warning else []
        if self.own_from_flow is not None:
            lines.append(f"the policy's own steps are {self.own_from_flow:.4f} from the flow that they integrate (fit)")
        return [*lines, *report.steps_around(self.chosen, self.neighbours, self.own_typical or 0.0)]

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, latencies in seconds. `tuned.denoising.save` writes the choice alone."""
        document = {
            "budget": asdict(self.budget),
            "machine": asdict(self.machine),
            "chosen": self.chosen.to_document(),
            "quantity": self.quantity,
            "deterministic": None if self.deterministic is None else asdict(self.deterministic),
            "dense_s": self.dense_s,
            "own_from_flow": self.own_from_flow,
            "own_typical": self.own_typical,
            "reference": self.reference,
            "neighbours": [trial.to_document() for trial in self.neighbours],
            "notes": list(self.notes),
            "rows": [trial.to_document() for trial in self.trials],
        }
        write_json(path, document)

    def plot(self, path: str | Path) -> None:
        """Plot error against latency, with the front and the choice.

        Raises:
            BacError: matplotlib is not installed.
        """
        report.draw(path, self.trials, self.chosen, self.front, self.budget, self.quantity)
