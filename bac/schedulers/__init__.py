"""When to update: one published method per file, pure functions of a calibration."""

from bac.schedulers import adaptive, bubbling, unified, uniform

__all__ = ["adaptive", "bubbling", "unified", "uniform"]
