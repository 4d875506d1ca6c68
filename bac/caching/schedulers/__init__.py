"""*When* to update: one method per file, pure functions of a calibration. Other papers' are in `bac.published`."""

from bac.caching.schedulers import adaptive, bubbling, mask, matched, paths, search, unified, uniform

__all__ = ["adaptive", "bubbling", "mask", "matched", "paths", "search", "unified", "uniform"]
