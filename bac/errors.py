"""Errors a user can meet. Each message names the thing, the rule, what came, and the next line to type."""

from typing import Any


class BacError(Exception):
    """Base of every error that `bac` raises on purpose."""


class ScheduleError(BacError, ValueError):
    """A schedule, or an input to one, breaks a rule."""


class CalibrationError(BacError, ValueError):
    """A calibration could not be made, saved or loaded."""


class FileError(BacError, OSError):
    """A file cannot be written; what was there before is unchanged."""


class UnsupportedPolicyError(BacError, TypeError):
    """`bac` does not know where this policy's denoiser, blocks or sampler are."""


class MismatchError(BacError, ValueError):
    """A schedule was made for another policy, solver or number of steps."""


class RunError(BacError, RuntimeError):
    """A denoising run did something that makes reuse unsafe."""


class PatchError(BacError, RuntimeError):
    """A wrapped policy was asked for something that only an untouched one can do."""


class ControlError(BacError, RuntimeError):
    """The control loop stopped the robot, or its options contradict each other.

    Attributes:
        statistics: Measurements until then (`bac.control.Statistics`); None if the loop had not begun.
        safe_action_sent: Whether the robot took the safe action.
    """

    statistics: Any = None
    safe_action_sent: bool = False
