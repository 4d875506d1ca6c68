"""What every estimator is: a frozen value that says what to keep of an update and what to return at a reuse."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Cell(NamedTuple):
    """One block at one denoising step."""

    block: str
    step: int


class Estimator(Protocol):
    """Stands in for a block's output where a schedule does not compute it.

    It holds options and fitted parameters only. What it remembers of a denoising run is the state that `store`
    returns: the run owns it, keeps one for each block and context, and empties it.
    """

    @property
    def name(self) -> str:
        """Identifier, as schedules carry it: ``hold``, ``taylor-1``."""

    @property
    def crosses_chunks(self) -> bool:
        """Whether the state outlives an action chunk; `policy.reset()` then empties it."""

    def store(self, state: Any, cell: Cell, x: Tensor | None, output: Tensor) -> Any:
        """The state after an update.

        Args:
            state: The state so far, None at a block's first update of a run.
            cell: What was updated.
            x: The block's input, `[B, ..., D]`, detached; None if it takes no tensor.
            output: The block's output, `[B, ..., D]`, detached; never written to.
        """

    def estimate(self, state: Any, cell: Cell, x: Tensor | None) -> Tensor | None:
        """The value at a reuse, of the stored output's shape, dtype and device; None to have it computed instead."""
