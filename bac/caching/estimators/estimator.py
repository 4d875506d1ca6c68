"""The protocol of estimators: what to keep of an update, and what to return at a reuse."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from bac.caching.block import BlockStep
from bac.errors import ScheduleError


@runtime_checkable
class Estimator(Protocol):
    """Gives a reused block's value. Sub-class it and set only the attributes that differ.

    An estimator is a frozen value of options and fitted parameters. Its memory of a denoising run is the state that
    `store` returns. The run owns that state, keeps one for each block and context, and empties it.

    Attributes:
        crosses_chunks: The state outlives an action chunk; `policy.reset()` then empties it.
        is_plain: Every reuse returns the stored output unchanged, whatever its type.
        is_fitted: Its parameters are fitted to one schedule and fit no other.
        continues_rest: It also estimates a block's further outputs (joint attention's other stream); otherwise they
            are held.
        adds_input: The block's output includes its input, as that of a whole layer does.
    """

    crosses_chunks: ClassVar[bool] = False
    is_plain: ClassVar[bool] = False
    is_fitted: ClassVar[bool] = False
    continues_rest: ClassVar[bool] = False
    adds_input: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Identifier, as schedules carry it: ``hold``, ``taylor-1``."""

    def store(self, state: Any, at: BlockStep, x: Tensor | None, output: Tensor) -> Any:
        """The state after an update.

        Args:
            state: The state so far, None at a block's first update of a run.
            at: The block and step of the update.
            x: The block's input, `[B, ..., D]`, detached; None if it takes no tensor.
            output: The block's output, `[B, ..., D]`, detached; never written to.
        """

    def estimate(self, state: Any, at: BlockStep, x: Tensor | None) -> Tensor | None:
        """The value at a reuse, of the stored output's shape, dtype and device; None asks for an update instead."""


class Anchor(NamedTuple):
    """Input and output of the last update."""

    x: Tensor
    output: Tensor


def require_input(x: Tensor | None, at: BlockStep) -> Tensor:
    """The block's input, checked to be there.

    Raises:
        ScheduleError: The block takes no tensor.
    """
    if x is None:
        raise ScheduleError(f"{at.block}: takes no tensor, so its input cannot be followed; take another estimator")
    return x
