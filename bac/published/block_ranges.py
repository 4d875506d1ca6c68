"""Reuse a range of layers in a phase of the run, compute all others (Delta-DiT, BlockDance, ProfilingDiT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError


@dataclass(frozen=True)
class Phase:
    """Denoising steps in which some layers are reused and the others computed.

    Attributes:
        first_step: First step of the phase; it lasts until the next phase or the end.
        layers: Layers that are reused, e.g. ``range(4, 8)``.
        interval: These layers update at every `interval`-th step of the phase, beginning with its first; at least 1.
    """

    first_step: int
    layers: Sequence[int]
    interval: int

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ScheduleError(f"interval: must be at least 1 step, got {self.interval}")


def block_ranges_schedule(calibration: Calibration, phases: Sequence[Phase], *, force_last: int = 0) -> Schedule:
    """Reuse different layers early and late in the run.

    The residual that a range of layers adds to the stream is the sum of its blocks' outputs, so reusing every block of
    the range reuses that residual. Delta-DiT (Chen et al., arXiv 2406.01125) reuses the rear layers first and the front
    ones later. BlockDance (Zhang et al., CVPR 2025) reuses the front layers in the late phase: ``[Phase(0, (), 1),
    Phase(start, range(n), N)]``. ProfilingDiT reuses lists of steps and layers found by profiling.

    Args:
        calibration: Only its blocks, number of steps and fingerprint are used.
        phases: In order, the first beginning at step 0.
        force_last: Final steps at which every block updates as well.

    Raises:
        ScheduleError: The first phase does not begin at step 0, phases are not in order, or one begins after the run.
    """
    starts = [phase.first_step for phase in phases]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= calibration.num_steps:
        raise ScheduleError(
            f"phases: must begin at increasing steps below {calibration.num_steps}, the first at 0, got {starts}"
        )
    ends = [*starts[1:], calibration.num_steps]
    steps: dict[str, tuple[int, ...]] = {}
    for block in calibration.blocks:
        strides = [phase.interval if block.layer in phase.layers else 1 for phase in phases]
        pieces = (range(start, end, stride) for start, end, stride in zip(starts, ends, strides, strict=True))
        steps[block.name] = tuple(step for piece in pieces for step in piece)
    return Schedule(calibration.num_steps, steps, calibration.fingerprint).with_last(force_last)
