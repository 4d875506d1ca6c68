"""When to update: one published method per file, pure functions of a calibration."""

from bac.schedulers import (
    adaptive,
    block_ranges,
    bubbling,
    by_kind,
    change_threshold,
    global_budget,
    mask,
    matched,
    outcome,
    paths,
    search,
    smooth,
    unified,
    uniform,
)

__all__ = [
    "adaptive",
    "block_ranges",
    "bubbling",
    "by_kind",
    "change_threshold",
    "global_budget",
    "mask",
    "matched",
    "outcome",
    "paths",
    "search",
    "smooth",
    "unified",
    "uniform",
]
