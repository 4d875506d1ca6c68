"""Schedulers decide *when* blocks update. One file each, pure functions of a calibration.

Schedulers of other papers are in `bac.published`.
"""

from bac.caching.schedulers import adaptive, bubbling, mask, matched, paths, search, unified, uniform

__all__ = ["adaptive", "bubbling", "mask", "matched", "paths", "search", "unified", "uniform"]
