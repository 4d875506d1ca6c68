"""A result of the joint experiment: one method at one budget, kept as JSON and shown as a row of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.setup.cells import Cell


@dataclass(frozen=True)
class Found:
    """One method at one budget.

    Attributes:
        cell: Cell of the method.
        sweeps: Block updates / number of blocks.
        fit_error: Typical error on the observations it was chosen with; None if nothing was chosen.
        typical: Typical error on held-out observations: the geometric mean of each observation's action error.
        error: Action error on held-out observations, root mean square.
    """

    cell: Cell
    sweeps: float
    fit_error: float | None
    typical: float
    error: float

    def to_document(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {**vars(self), "cell": self.cell.to_document()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Found":
        """Inverse of `to_document`."""
        return cls(**{**document, "cell": Cell.from_document(document["cell"])})

    def to_row(self, latency_ms: float | None) -> dict[str, Any]:
        """The row of ``table.json``. Its cell names the solver and the number of steps that really run.

        Args:
            latency_ms: Median latency, replayed [ms]; None if it was not timed.
        """
        cell, put_on = self.cell, None if self.cell.denoising is None else self.cell.denoising.solver
        runs = {"solver": cell.solver if put_on is None else put_on.name, "num_steps": cell.steps}
        numbers = {**vars(self), "cell": {**cell.describe(), **runs}, "latency_ms": latency_ms}
        return {"name": cell.name, **numbers}
