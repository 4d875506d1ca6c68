"""The interceptor that lets an estimator stand in, and the run of estimators that look back an action chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bac.cache import CachedBlock, DenoisingRun, Slot
from bac.errors import RunError
from bac.estimators.estimator import Cell, Estimator
from bac.estimators.forecast import Forecast, History
from bac.nested import map_tensors
from bac.patch import Interceptor


class EstimatedBlock(CachedBlock):
    """Computes a block at its update steps; at all others returns what an estimator makes of what was stored.

    A slot keeps, for each context, the estimator's state and what stands for the rest that the block returned besides
    its feature: a forecast continues that too (joint attention returns both streams), everything else holds it.

    Args:
        run: The run it takes part in.
        index: Its place in `run.names`.
        updates: Whether it updates, by denoising step, `[K]`.
        estimator: Stands in.
        options: As for `CachedBlock`.
    """

    def __init__(
        self, run: DenoisingRun, index: int, updates: Sequence[bool], estimator: Estimator, **options: Any
    ) -> None:
        super().__init__(run, index, updates, **options)
        self.estimator = estimator
        self._cells = [Cell(run.names[index], step) for step in range(run.num_steps)]

    def _evaluate(self, slot: Slot, step: int, context: int, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        x = _input(inputs, options)
        if not self._is_update(step, context, x):
            state, rest = slot.features[context]
            value = self.estimator.estimate(state, self._cells[step], x)
            if value is not None:
                return self._joined(value, rest, self._cells[step])
        return self._update(slot, step, context, x, inputs, options)

    def _is_update(self, step: int, context: int, x: Tensor | None) -> bool:
        return self._is_due(step)

    def _update(
        self,
        slot: Slot,
        step: int,
        context: int,
        x: Tensor | None,
        inputs: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        kept_x = None if x is None else self._kept(x)
        output = self.original(*inputs, **options)
        feature, rest = self._divided(output)
        state, before = slot.features.get(context, (None, None))
        state = self.estimator.store(state, self._cells[step], kept_x, self._kept(feature))
        slot.features[context] = state, self._stored_rest(before, rest, self._cells[step])
        return output

    def _stored_rest(
        self, before: tuple[Any, ...] | None, rest: tuple[Any, ...] | None, cell: Cell
    ) -> tuple[Any, ...] | None:
        """Histories of the rest's tensors for a forecast; otherwise the rest itself."""
        if rest is None or not isinstance(self.estimator, Forecast):
            kept: tuple[Any, ...] | None = map_tensors(self._kept, rest)
            return kept
        return tuple(
            self.estimator.store(past, cell, None, self._kept(part)) if isinstance(part, Tensor) else part
            for past, part in zip(before or (None,) * len(rest), rest, strict=True)
        )

    def _divided(self, output: Any) -> tuple[Tensor, tuple[Any, ...] | None]:
        """The feature and, of a tuple, the rest."""
        feature, rest = (output[0], output[1:]) if isinstance(output, tuple) and output else (output, None)
        if not isinstance(feature, Tensor):
            raise RunError(
                f"{self.run.names[self.index]}: returns {type(output).__name__}; an estimator needs a tensor, or a "
                "tuple that begins with one. Reuse it plainly: estimator=bac.estimators.Hold()"
            )
        return feature, rest

    def _joined(self, value: Tensor, rest: tuple[Any, ...] | None, cell: Cell) -> Any:
        if rest is None:
            return self._usable(value)
        if isinstance(self.estimator, Forecast):
            rest = tuple(
                self.estimator.estimate(part, cell, None) if isinstance(part, History) else part for part in rest
            )
        return (self._usable(value), *map_tensors(self._usable, rest))


class ContinuedRun(DenoisingRun):
    """A run whose blocks find their states as the last action chunk left them, until `forget`."""

    def __init__(self, names: Sequence[str], num_steps: int, num_contexts: int = 1) -> None:
        super().__init__(names, num_steps, num_contexts)
        self._left: list[dict[int, Any]] = []
        self._complete = False

    def __deepcopy__(self, memo: dict[int, Any]) -> ContinuedRun:
        memo[id(self)] = clone = ContinuedRun(self.names, self.num_steps, self.num_contexts)
        return clone

    def begin(self) -> None:
        """Enter with the states of the chunk before, if it was completed."""
        super().begin()
        self._complete = False
        for slot, features in zip(self.slots, self._left, strict=False):
            slot.features = features

    def check_complete(self) -> None:
        """As in any run; only a complete one leaves anything."""
        super().check_complete()
        self._complete = True

    def end(self) -> None:
        """Leave and keep the states of a complete run."""
        self._left = [slot.features for slot in self.slots] if self._complete else []
        super().end()

    def forget(self) -> None:
        """Let the next chunk begin with nothing."""
        self._left = []


class ForgetOnReset(Interceptor):
    """Empties what outlives an action chunk when the policy's episode ends."""

    def __init__(self, run: ContinuedRun) -> None:
        self.run = run

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.run.forget()
        return self.original(*inputs, **options)


def _input(inputs: tuple[Any, ...], options: dict[str, Any]) -> Tensor | None:
    """The first tensor among the arguments."""
    for value in (*inputs, *options.values()):
        if isinstance(value, Tensor):
            return value.detach()
    return None
