"""The timeline maps control steps to actions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Actions = npt.NDArray[np.float32]


class Timeline:
    """The newest chunk, aligned by observation: row i is for the control step i after the observed one.

    Args:
        blend_steps: Control steps after a switch over which actions move linearly from the old chunk's to the new
            one's, as long as the old one has any; 0 switches at once.
    """

    def __init__(self, blend_steps: int = 0) -> None:
        self._blend_steps = blend_steps
        self._actions: Actions = np.empty((0, 0), np.float32)
        self.observed_step = 0

    @property
    def end(self) -> int:
        """The first control step without an action."""
        return self.observed_step + len(self._actions)

    def action(self, step: int) -> Actions | None:
        """The action for a control step, `[Da]`; None if there is none."""
        return self._actions[step - self.observed_step] if self.observed_step <= step < self.end else None

    def add(self, chunk: Actions, observed_step: int, step: int) -> float | None:
        """Switch to a chunk. Its actions for control steps before `step` are never used.

        Args:
            chunk: Actions, `[T, Da]`.
            observed_step: The control step whose observation the chunk was computed from.
            step: The current control step.

        Returns:
            Discontinuity: the largest difference of an action's component between the two chunks at `step`, before
            blending, in the action's unit. None if one of them has no action there.
        """
        blended = chunk.copy()
        jump = None
        for index in range(max(1, self._blend_steps)):  # at least once, to measure the jump
            old, row = self.action(step + index), step + index - observed_step
            if old is None or row >= len(chunk):
                break
            if index == 0:
                jump = float(np.abs(chunk[row] - old).max())
            if self._blend_steps:
                weight = (index + 1) / (self._blend_steps + 1)
                blended[row] = (1 - weight) * old + weight * chunk[row]
        self._actions, self.observed_step = blended, observed_step
        return jump
