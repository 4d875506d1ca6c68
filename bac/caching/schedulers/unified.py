"""One ACS schedule shared by all blocks (the ablation "unified" of the BAC paper)."""

from __future__ import annotations

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.caching.schedulers.adaptive import update_steps
from bac.errors import ScheduleError


def unified_schedule(
    calibration: Calibration, num_updates: int, *, block: str | None = None, force_last: int = 0
) -> Schedule:
    """Update all blocks together at the steps that ACS chooses for one similarity matrix.

    Args:
        calibration: Statistics of the untouched policy.
        num_updates: Updates of every block, in [1, K].
        block: The block whose similarity decides; the paper takes the first layer's self-attention. By default the
            mean similarity of all blocks decides.
        force_last: Final steps at which every block updates as well.

    Raises:
        ScheduleError: A number is out of range, or there is no such block.
    """
    names = calibration.block_names
    if block is not None and block not in names:
        raise ScheduleError(f"block: must be one of the calibration's blocks ({names[0]}, ...), got {block!r}")
    chosen = calibration.similarity.mean(axis=0) if block is None else calibration.similarity[names.index(block)]
    steps = update_steps(chosen, num_updates)
    return Schedule(calibration.num_steps, dict.fromkeys(names, steps), calibration.fingerprint).with_last(force_last)
