"""Estimators decide *what* a block returns at a reuse: the stored output, a forecast, or a fitted correction.

Schedulers decide *when* a block updates (`bac.caching.schedulers`). Any pair works::

    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(order=1)))

`Hold`, the default, is plain reuse. `Taylor` continues the last updates along a line or curve. `Residual` reuses the
contribution of whole layers to the stream. Estimators of other papers are in `bac.published`.
"""

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator
from bac.caching.estimators.hold import Hold
from bac.caching.estimators.residual import Residual
from bac.caching.estimators.taylor import Taylor

__all__ = ["BlockStep", "Estimator", "Hold", "Residual", "Taylor"]
