"""What the joint experiment finds: one method at one budget, kept as JSON and shown as a row of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.setup.cells import Cell


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

    def to_document(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "cell": self.cell.to_document()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Found":
        """Inverse of `to_document`."""
        return cls(**{**document, "cell": Cell.from_document(document["cell"])})

    def to_row(self, latency_ms: float | None) -> dict[str, Any]:
        """A row of ``table.json``; its cell has the solver and the number of steps that really run.

        Args:
            latency_ms: Median, replayed [ms]; None if it was not timed.
        """
        cell, put_on = self.cell, None if self.cell.denoising is None else self.cell.denoising.solver
        runs = {"solver": cell.solver if put_on is None else put_on.name, "num_steps": cell.steps}
        numbers = {**vars(self), "cell": {**cell.describe(), **runs}, "latency_ms": latency_ms}
        return {"name": cell.name, **numbers}
