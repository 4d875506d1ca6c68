"""Reuse across action chunks: the output of the same denoising step in an earlier chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator
from bac.errors import ScheduleError


@dataclass(frozen=True)
class Chunks:
    """Outputs of a block in this action chunk, and in the last chunk that was computed in full.

    Attributes:
        index: Chunks since the reset, the current one included.
        current: Computed outputs of this chunk, by denoising step.
        reference: Outputs of the last full chunk, by denoising step.
        last_update: Step of the last update in this chunk.
    """

    index: int
    current: Mapping[int, Tensor]
    reference: Mapping[int, Tensor]
    last_update: int = 0


@dataclass(frozen=True)
class PreviousChunk(Estimator):
    """Reuse across action chunks, as C3ache does: observations change little from one chunk to the next.

    The only estimator with a state that outlives a chunk. `policy.reset()`, an error, and a batch of another shape
    empty it. Rows of a batch must be the same episodes in the same order from chunk to chunk. The first chunk after a
    reset is computed in full, and so is every `refresh`-th from there; the others reuse the last full one.

    Attributes:
        refresh: Chunks from one full chunk to the next, at least 1; 1 never reuses.
        anchored: Add the difference between this chunk's last update and the full chunk's output at that step. Then
            only the change along the run comes from the full chunk.
    """

    refresh: int = 2
    anchored: bool = False
    crosses_chunks = True

    def __post_init__(self) -> None:
        if self.refresh < 1:
            raise ScheduleError(f"refresh: must be at least 1 chunk, got {self.refresh}")

    @property
    def name(self) -> str:
        """``previous_chunk``, or ``previous_chunk_anchored``."""
        return "previous_chunk" + ("_anchored" if self.anchored else "")

    def store(self, state: Chunks | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Chunks:
        """Store an update; at step 0 a new chunk begins."""
        if at.step > 0 and state is not None:
            return replace(state, current={**state.current, at.step: output}, last_update=at.step)
        # A batch of another shape cannot be a continuation of the same episodes.
        if state is None or (state.current[0].shape, state.current[0].dtype) != (output.shape, output.dtype):
            return Chunks(1, {0: output}, {})
        reference = state.current if self._is_full(state) else state.reference
        return Chunks(state.index + 1, {0: output}, reference)

    def estimate(self, state: Chunks, at: BlockStep, x: Tensor | None) -> Tensor | None:
        """The full chunk's output at this step; None while a chunk is computed in full."""
        if self._is_full(state):
            return None
        value = state.reference[at.step]
        if not self.anchored:
            return value
        return value + (state.current[state.last_update] - state.reference[state.last_update])

    def _is_full(self, state: Chunks) -> bool:
        return (state.index - 1) % self.refresh == 0
