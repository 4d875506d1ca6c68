"""Control steps on an absolute grid of time: step k is due at start + k / control_hz, however late its elders were."""

from __future__ import annotations

from math import floor

from bac.control.clock import Clock

_ROUNDING = 1e-9  # of a control step: a sleep that ends exactly on time must not count for the step before


class Ticker:
    """Waits for one control step after another, and counts those that missed their deadline.

    A control step misses its deadline if it is not over when the next one is due. Steps whose time has passed
    altogether are skipped and count too: a burst of late actions would be worse than none.

    Args:
        clock: Where time comes from.
        control_hz: Control steps per second [Hz].
    """

    def __init__(self, clock: Clock, control_hz: float) -> None:
        self._clock = clock
        self._control_hz = control_hz
        self._start = clock.now()
        self._step = -1
        self.missed = 0
        self.lateness_s = 0.0

    def due(self, step: int) -> float:
        """When a control step begins [s]."""
        return self._start + step / self._control_hz

    def wait(self) -> int:
        """Sleep until the next control step is due.

        Returns:
            Its index; `lateness_s` is how much later than it was due the sleep ended [s].
        """
        due = self._step + 1
        if self._step >= 0:
            present = self._present()
            self.missed += max(0, present - self._step)
            due = max(due, present)
        self._clock.sleep_until(self.due(due))
        self.lateness_s = self._clock.now() - self.due(due)
        self._step = max(due, self._present())
        self.missed += self._step - due
        return self._step

    def _present(self) -> int:
        """The control step that the present belongs to."""
        return floor((self._clock.now() - self._start) * self._control_hz + _ROUNDING)
