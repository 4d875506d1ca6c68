"""Bubbling Union Algorithm (BUA): a downstream FFN's update must not absorb stale input."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bac.caching.block import Block, BlockKind
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError

logger = logging.getLogger(__name__)


def bubble(
    schedule: Schedule, caching_error: Mapping[str, float], num_bubbled: int, blocks: Sequence[Block]
) -> Schedule:
    """Update fragile upstream blocks whenever a downstream FFN updates.

    An FFN does not normalise between its projections, so an error of its input passes to first order into its output.
    Its update only helps if its input is fresh too. Bubbling Union Algorithm, Ji et al. (arXiv 2506.13456). Our
    `num_bubbled` is their n. Downstream of a block are the FFNs of its own and of later layers, as in the authors'
    code.

    Args:
        schedule: Update steps before bubbling. All unions use these, so the order of the blocks does not matter.
        caching_error: Mean L1 caching error per block, >= 0, in units of the block's output.
        num_bubbled: How many of the most fragile blocks take part, in [0, N]; 0 returns `schedule` itself. Of equally
            fragile blocks the upstream one comes first.
        blocks: The blocks of `schedule`, for their kind and layer.

    Where no block is a feed-forward one, as in a convolutional U-Net, nothing bubbles, and a warning is logged.

    Raises:
        ScheduleError: `num_bubbled` is out of range, or a block of `schedule` is missing from `caching_error` or
            `blocks`.
    """
    names = schedule.block_names
    if not 0 <= num_bubbled <= len(names):
        raise ScheduleError(f"num_bubbled: must be in [0, {len(names)}] (the number of blocks), got {num_bubbled}")
    if num_bubbled == 0:
        return schedule
    described = {block.name: block for block in blocks}
    for what, known in (("caching_error", caching_error), ("blocks", described)):
        missing = [name for name in names if name not in known]
        if missing:
            raise ScheduleError(f"{what}: lacks {len(missing)} of the schedule's blocks, first {missing[0]}")

    if all(described[name].kind is not BlockKind.FEED_FORWARD for name in names):
        logger.warning(
            "num_bubbled = %d changes nothing: none of the %d blocks is a feed-forward one", num_bubbled, len(names)
        )
    fragile = sorted(names, key=lambda name: -caching_error[name])[:num_bubbled]
    steps = dict(schedule.update_steps)
    for name in fragile:
        downstream = [
            schedule.update_steps[other]
            for other in names
            if described[other].kind is BlockKind.FEED_FORWARD and described[other].layer >= described[name].layer
        ]
        steps[name] = tuple(sorted(set(schedule.update_steps[name]).union(*downstream)))
    return replace(schedule, update_steps=steps)
