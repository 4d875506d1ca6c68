"""Control steps on an absolute time grid: step k is due at start + k / control_hz; earlier delays do not shift it."""

from __future__ import annotations

from math import floor

from bac.control.clock import Clock

_ROUNDING = 1e-9  # of a control step: a sleep that ends exactly on time must not count as the step before


class Ticker:
    """Waits for one control step after another, and counts missed deadlines.

    A control step misses its deadline if it is not over when the next one is due. Steps whose time has passed
    altogether are skipped and count as missed: a burst of late actions would be worse than none.

    Args:
        clock: The source of time.
        control_hz: Control steps per second [Hz].

    Attributes:
        missed: Missed deadlines so far.
        lateness_s: Delay of the last wake-up after it was due [s].
    """

    def __init__(self, clock: Clock, control_hz: float) -> None:
        self._clock = clock
        self._control_hz = control_hz
        self._start = clock.now()
        self._step = -1
        self.missed = 0
        self.lateness_s = 0.0

    def due(self, step: int) -> float:
        """The time at which a control step is due [s]."""
        return self._start + step / self._control_hz

    def wait(self) -> int:
        """Sleep until the next control step is due.

        Returns:
            The step's index.
        """
        due = self._step + 1
        if self._step >= 0:
            present = self._present()
            self.missed += max(0, present - self._step)
            due = max(due, present)
        self._clock.sleep_until(self.due(due))
        self.lateness_s = self._clock.now() - self.due(due)
        self._step = max(due, self._present())  # a late wake-up skips the steps that have passed
        self.missed += self._step - due
        return self._step

    def _present(self) -> int:
        """The control step whose time it is now."""
        return floor((self._clock.now() - self._start) * self._control_hz + _ROUNDING)
