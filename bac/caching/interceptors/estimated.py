"""The interceptor of a block under an estimator: at a reuse it returns an estimate of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator
from bac.caching.interceptors.cached import CachedBlock
from bac.caching.interceptors.nested import map_tensors
from bac.caching.interceptors.run import DenoisingRun, Slot
from bac.errors import RunError


@dataclass(frozen=True)
class Continued:
    """An estimator's state for a further output of a block, besides its feature."""

    state: Any


class EstimatedBlock(CachedBlock):
    """Computes a block at its update steps; returns an estimate at all others.

    A block may return a tuple: its feature, and a rest. For each context a slot keeps the estimator's state for the
    feature and, for the rest, states if the estimator continues it, or else the values, which are held.

    Args:
        run: The run that all interceptors share.
        index: Position of the block in `run.names`.
        updates: Whether the block updates, by denoising step, `[K]`.
        estimator: Gives the value at a reuse.
        options: As for `CachedBlock`.
    """

    def __init__(
        self, run: DenoisingRun, index: int, updates: Sequence[bool], estimator: Estimator, **options: Any
    ) -> None:
        super().__init__(run, index, updates, **options)
        self.estimator = estimator
        self._places = [BlockStep(run.names[index], step) for step in range(run.num_steps)]

    def _evaluate(self, slot: Slot, step: int, context: int, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        x, ownership, key = _input(inputs, options), self.run.ownership, (self.index, context)
        if not ownership.is_intact(key):
            slot.features.pop(context, None)
            return self._update(slot, step, context, x, inputs, options)
        if not self._is_update(step, context, x):
            state, rest = slot.features[context]
            value = self.estimator.estimate(state, self._places[step], x)
            if value is not None:  # None asks for an update
                reused = self._joined(value, rest, self._places[step])
                ownership.lend(key, reused, more=True)
                return reused
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
        kept_x = None if x is None else self._kept(x)  # before the call, which may write into its input
        self.run.ownership.lend((self.index, context), x)
        output = self.original(*inputs, **options)
        feature, rest = self._divided(output)
        state, before = slot.features.get(context, (None, None))
        state = self.estimator.store(state, self._places[step], kept_x, self._kept(feature))
        slot.features[context] = state, self._stored_rest(before, rest, self._places[step])
        self.run.ownership.lend((self.index, context), output, more=True)
        return output

    def _stored_rest(
        self, before: tuple[Any, ...] | None, rest: tuple[Any, ...] | None, at: BlockStep
    ) -> tuple[Any, ...] | None:
        """States of the rest's tensors if the estimator continues them; otherwise the rest itself."""
        if rest is None or not self.estimator.continues_rest:
            kept: tuple[Any, ...] | None = map_tensors(self._kept, rest)
            return kept
        return tuple(
            Continued(self.estimator.store(past and past.state, at, None, self._kept(part)))
            if isinstance(part, Tensor)
            else part
            for past, part in zip(before or (None,) * len(rest), rest, strict=True)
        )

    def _divided(self, output: Any) -> tuple[Tensor, tuple[Any, ...] | None]:
        """The feature and, if the output is a tuple, the rest."""
        feature, rest = (output[0], output[1:]) if isinstance(output, tuple) and output else (output, None)
        if not isinstance(feature, Tensor):
            raise RunError(
                f"{self.run.names[self.index]}: returns {type(output).__name__}; an estimator needs a tensor, or a "
                "tuple that begins with one. Reuse it plainly: "
                "bac.Denoising(schedule=schedule, estimator=bac.caching.estimators.Hold())"
            )
        return feature, rest

    def _joined(self, value: Tensor, rest: tuple[Any, ...] | None, at: BlockStep) -> Any:
        if rest is None:
            return self._usable(value)
        if self.estimator.continues_rest:
            rest = tuple(
                self.estimator.estimate(part.state, at, None) if isinstance(part, Continued) else part for part in rest
            )
        return (self._usable(value), *map_tensors(self._usable, rest))


def _input(inputs: tuple[Any, ...], options: dict[str, Any]) -> Tensor | None:
    """The first tensor among the arguments."""
    for value in (*inputs, *options.values()):
        if isinstance(value, Tensor):
            return value.detach()
    return None
